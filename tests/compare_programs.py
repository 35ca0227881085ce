"""Compares the compiled programs of two checkouts, for changes that should change none.

python tests/compare_programs.py OLD NEW

Each checkout trains a few steps of six small runs in processes of their own. XLA writes
its optimised programs; those of training and evaluation steps are compared as text,
without their metadata (names of files, lines and operations).
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

CIFAR = ("cifar10.py", "--config=configs/base.py", "--config.train.batch_size=64")
DEVICE = ("--config.data.pipeline=device", "--config.train.steps_per_call=2")
RUNS = {
    "tf.data, average": (*CIFAR, "--config.optim.ema_decay=0.9"),
    "device": (*CIFAR, *DEVICE),
    "dropout": ("mnist.py", "--config=configs/mlp.py"),
    "LeNet-5": ("mnist.py", "--config=configs/lenet5.py"),
    "two seeds": (*CIFAR, *DEVICE, "--config.num_seeds=2"),
    "pmap": (*CIFAR, "--config.parallel.mode=pmap"),
}
FLAGS = (
    "--config.data.source=embedded",
    "--config.train.steps=2",
    "--config.train.tensorboard=False",
    "--config.compile_cache=False",
)
# Of the steps; what starts up and makes batches compiles much besides.
STEPS = r".*(_step|on_device|first_of_chunk|_fun).*"


def programs(tree: Path, flags: tuple[str, ...]) -> Counter[str]:
    """Returns the optimised programs of a short run of a checkout, as text."""
    with tempfile.TemporaryDirectory() as folder:
        dump = f"--xla_dump_to={folder}/hlo --xla_dump_hlo_as_text"
        environment = os.environ | {
            "PYTHONPATH": str(tree),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "XLA_FLAGS": f"{dump} --xla_dump_hlo_module_re={STEPS}",
        }
        script, *rest = flags
        command = [sys.executable, str(tree / "experiments" / script), *rest, *FLAGS]
        subprocess.run(
            [*command, f"--workdir={folder}/run"],
            env=environment,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = Path(folder, "hlo").glob("*after_optimizations.txt")
        return Counter(_without_names(path.read_text()) for path in found)


def _without_names(text: str) -> str:
    text = re.sub(r",? metadata=\{[^}]*\}", "", text)
    text = re.sub(r"^(HloModule) [\w.-]+", r"\1", text, flags=re.M)
    return re.split(r"^(FileNames|FunctionNames)", text, flags=re.M)[0]


def main(old: str, new: str) -> int:
    """Prints which programs differ; returns 1 where any do."""
    trees = Path(old).resolve(), Path(new).resolve()
    differ = 0
    for name, flags in RUNS.items():
        before, after = (programs(tree, flags) for tree in trees)
        gone, come = before - after, after - before
        differ |= bool(gone or come or not before)
        same = sum((before & after).values())
        print(f"{name}: {same} the same, {len(gone)} gone, {len(come)} new", flush=True)
        for kind, texts in (("gone", gone), ("new", come)):
            for i, text in enumerate(texts):
                Path(f"/tmp/{name}-{kind}-{i}.txt".replace(" ", "_")).write_text(text)
    return differ


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
