#!/usr/bin/env bash
# Verifies, times and trains on a machine with a GPU, without network and TensorFlow.
#
#   OUT=results bash experiments/speed/gpu.sh 1 IN
#   OUT=results bash experiments/speed/gpu.sh 2 IN
#
# Run it from the root of the repository. Part 1 verifies, times and trains on MNIST;
# part 2 trains on CIFAR-10. IN is a folder with the packed pictures, unpack.py beside
# them, and whl/ with the wheel of ml_collections; without IN, KEPT/npz and KEPT/site
# are there already.
#
# Each part takes five minutes at most: every command has its own limit, and the most
# important comes first. OUT has at most five files: verify.json, benchmark.json,
# peers.json, runs.jsonl (a line for each run) and log.txt; they are written as results
# come. STEPS=2 shortens the trainings and SEEDS=1 has one of each, to try the script
# on a CPU; LIMIT=10 multiplies the limits.
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
    timeout -k 5 "$limit" "$@" >>"$log" 2>&1
    echo "== exit $? after $((SECONDS - start)) s of at most $limit" | tee -a "$log"
}

# trained NAME SECONDS SEEDS SCRIPT FLAGS...: trains, and adds a line to runs.jsonl.
trained() {
    local name=$1 limit=$2 seeds=${SEEDS:-$3} script=$4 workdir=$kept/runs/$1-$part
    shift 4
    rm -rf "$workdir"
    limited "$limit" python3 "experiments/$script" "--workdir=$workdir" "$@" \
        --config.data.source=npz --config.data.pipeline=device \
        --config.train.steps_per_call=1000 --config.train.log_every=1000 \
        --config.train.checkpoint_every=0 --config.train.eval_every=0 \
        --config.train.tensorboard=False --config.num_seeds="$seeds" \
        ${STEPS:+--config.train.steps=$STEPS}
    python3 - "$name" "$workdir" >>"$out/runs.jsonl" <<'END'
import json, pathlib, sys
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
parts = {"run": name}
for part in ("final_metrics", "manifest", "config"):
    file = folder / f"{part}.json"
    parts[part] = json.loads(file.read_text()) if file.exists() else None
print(json.dumps(parts))
END
}

# timed NAME SECONDS GROUPS: times groups of the benchmark into NAME.json.
timed() {
    limited "$2" python3 experiments/benchmark.py "--only=$3" "--rounds=${ROUNDS:-10}" \
        "--out=$kept/$1"
    cp "$kept/$1/benchmark.json" "$out/$1.json"
}

if [ $# -gt 1 ]; then
    python3 -m pip install -q --no-index --no-deps --target "$kept/site" "$2"/whl/*.whl
    limited 60 python3 "$2/unpack.py" "$2" "$kept/npz"
fi
mnist=--config.data.file=$kept/npz/mnist.npz
cifar=--config.data.file=$kept/npz/cifar10.npz
views=--config.eval.views=10
if [ "$part" = 1 ]; then
    limited 10 nvidia-smi
    limited 120 python3 experiments/verify.py "--out=$out/verify.json"
    timed benchmark 50 networks,operations
    trained mnist 50 16 mnist.py --config=configs/mnist.py "$mnist"
    # PyTorch's compiler alone takes a minute.
    timed peers 70 peers
elif [ "$part" = 2 ]; then
    trained base 40 16 cifar10.py --config=configs/base.py "$cifar" "$views"
    trained fast 50 16 cifar10.py --config=configs/fast.py "$cifar" "$views"
    trained long 110 8 cifar10.py --config=configs/long.py "$cifar" "$views"
    trained best 100 8 cifar10.py --config=configs/best.py "$cifar" "$views"
else
    echo "error: got part $part, need 1 or 2" >&2
    exit 2
fi
