#!/usr/bin/env bash
# Verifies, times and trains on a machine with a GPU, without network and TensorFlow.
#
#   OUT=results bash experiments/speed/gpu.sh 1 IN
#   OUT=results bash experiments/speed/gpu.sh 2 IN
#
# Run it from the root of the repository. Part 1 verifies and times; part 2 trains, on
# the same machine: several seeds looped over, or batched where part 1 found that faster.
# IN is a folder with the packed pictures, unpack.py beside them, and whl/ with the wheels
# of ml_collections and, where it is missing, filelock; without IN, KEPT/npz with
# cifar10.npz and mnist.npz, and KEPT/site with the packages, are there already.
#
# Each part takes five minutes at most: every command has its own limit, and the most
# important comes first. OUT has at most five files, written as results come:
# verify.json, benchmark.json, peers.json, runs.tgz (the runs' folders without their
# checkpoints; `tables.py --add` takes them once it has rows for them) and log.txt. A
# second call is faster, as programs are kept compiled, and training goes on where the
# first one has stopped (KEPT/runs).
#
# To try it on a CPU: STEPS=2 shortens the trainings, SEEDS=1 has one seed in each,
# ROUNDS=1 times each case once, and LIMIT=10 multiplies the limits.
set -u
part=${1:?"got no part, need 1 or 2"}
out=$(mkdir -p "${OUT:?"set OUT, the folder of the results"}" && cd "$OUT" && pwd)
kept=${KEPT:-/root/kept}
log=$out/log.txt
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD:$kept/site
export XLA_PYTHON_CLIENT_PREALLOCATE=false

# limited SECONDS COMMAND...: runs a command for so long, and says in the log how it went.
limited() {
    local limit=$(($1 * ${LIMIT:-1})) start=$SECONDS
    shift
    echo "== $*" | tee -a "$log"
    timeout -k 2 "$limit" "$@" >>"$log" 2>&1
    echo "== exit $? after $((SECONDS - start)) s of at most $limit" | tee -a "$log"
}

# timed NAME SECONDS GROUPS: times groups of the benchmark into NAME.json.
timed() {
    limited "$2" python3 experiments/benchmark.py "--only=$3" "--rounds=${ROUNDS:-5}" \
        "--out=$kept/$1"
    cp "$kept/$1/benchmark.json" "$out/$1.json"
}

# trained NAME SECONDS SEEDS SCRIPT FLAGS...: trains, and packs all runs into runs.tgz.
trained() {
    local name=$1${STEPS:+-$STEPS} limit=$2 seeds=${SEEDS:-$3} script=$4
    shift 4
    limited "$limit" python3 "experiments/$script" "--workdir=$kept/runs/$name" "$@" \
        --config.data.source=npz --config.data.pipeline=device \
        --config.train.log_every=1000 --config.train.checkpoint_every=0 \
        --config.train.eval_every=0 --config.train.tensorboard=False \
        --config.num_seeds="$seeds" --config.parallel.vmap_seeds="$batched" \
        ${STEPS:+--config.train.steps=$STEPS}
    tar -czf "$out/runs.tgz" -C "$kept" --exclude=checkpoints runs
}

if [ $# -gt 1 ]; then
    limited 15 python3 -m pip install -q --no-index --no-deps --upgrade \
        --target "$kept/site" "$2"/whl/*.whl
    limited 20 python3 "$2/unpack.py" "$2" "$kept/npz"
fi
if [ "$part" = 1 ]; then
    if command -v nvidia-smi >/dev/null; then limited 5 nvidia-smi; fi
    limited 100 python3 experiments/verify.py "--out=$out/verify.json"
    timed benchmark 95 seeds,kernels,calls,operations,networks
    # PyTorch's compiler alone takes a minute.
    timed peers 60 batches,peers
elif [ "$part" = 2 ]; then
    batched=$(python3 - "$kept/benchmark/benchmark.json" <<'END'
import json, sys
try:
    ratios = json.load(open(sys.argv[1]))["groups"]["seeds"]["ratios"]
    print(ratios["16 seeds, vmap / 16 seeds, looped"] > 1)
except (OSError, LookupError, ValueError):  # not measured, or not on a GPU
    print(False)
END
)
    echo "== seeds are batched by vmap: $batched" | tee -a "$log"
    mnist=--config.data.file=$kept/npz/mnist.npz
    cifar=--config.data.file=$kept/npz/cifar10.npz
    views=--config.eval.views=10
    trained base 30 16 cifar10.py --config=configs/base.py "$cifar" "$views"
    trained mnist 35 16 mnist.py --config=configs/mnist.py "$mnist"
    trained fast 30 16 cifar10.py --config=configs/fast.py "$cifar" "$views"
    trained long 80 8 cifar10.py --config=configs/long.py "$cifar" "$views"
    trained best 50 8 cifar10.py --config=configs/best.py "$cifar" "$views"
    # With the first 16 these are 32 seeds, for the claim about 99.2%.
    trained mnist-more 35 16 mnist.py --config=configs/mnist.py "$mnist" --config.seed=16
else
    echo "error: got part $part, need 1 or 2" >&2
    exit 2
fi
