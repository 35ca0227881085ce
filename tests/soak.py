"""A run that is killed at random moments, and then let finish, against one that is not.

python tests/soak.py      or      pytest -m slow -s tests/soak.py
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import pytest

from cnnjax.config import from_stored
from cnnjax.run import abstract_state, recipe_of, restore
from cnnjax.runtime import backend
from cnnjax.workdir import files

ROOT = Path(__file__).parents[1]
KILLS, STEPS, SAVE_EVERY = 60, 8_000, 25
# Seconds from a line of training to a kill, at most; one kill in four comes at any
# moment of the start instead.
LIFE, START = 0.7, 6.0
COMMAND = (
    *(sys.executable, str(ROOT / "experiments" / "mnist.py")),
    *("--config=configs/mlp.py", "--config.data.source=embedded"),
    *("--config.data.pipeline=device", "--config.train.steps_per_call=5"),
    *("--config.data.val_examples=100", "--config.train.batch_size=8"),
    "--config.optim.learning_rate=0.01",
    *(f"--config.train.steps={STEPS}", f"--config.train.checkpoint_every={SAVE_EVERY}"),
    *("--config.train.eval_every=200", "--config.train.log_every=5"),
)


def start(workdir, cache):
    # JAX, which is imported here, has set there what XLA logs.
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    environment = kept | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(cache),
    }
    return subprocess.Popen(
        [*COMMAND, f"--workdir={workdir}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def live_and_die(workdir, cache, draw, *, kill):
    """Runs one life; returns its exit code, output, errors and last printed step."""
    process = start(workdir, cache)
    lines = []
    if kill and draw.random() < 0.25:
        threading.Timer(draw.uniform(0, START), process.kill).start()
    for line in process.stdout:
        lines.append(line)
        if kill and line.startswith("step "):
            threading.Timer(draw.uniform(0, LIFE), process.kill).start()
            break
    rest, err = process.communicate()
    out = "".join(lines) + rest
    printed = [int(step) for step in re.findall(r"^step (\d+), loss", out, re.M)]
    return process.returncode, out, err, max(printed, default=None)


def saved(workdir):
    names = (path.name for path in (workdir / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def final_bytes(workdir):
    recipe = recipe_of(from_stored(files.read_json(workdir / files.CONFIG)), 10)
    state = restore(workdir, abstract_state(recipe, (28, 28, 1)))
    return [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(state))]


def records(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in line.items() if not k.startswith("perf/")} for line in lines
    ]


def soak(folder, seed=0):
    """Returns what happened, as numbers; fails where anything was lost."""
    draw, cache = random.Random(seed), folder / "cache"
    whole, killed = folder / "whole", folder / "killed"
    uninterrupted = start(whole, cache)
    _, err = uninterrupted.communicate()
    assert (uninterrupted.returncode, err) == (0, "")
    counts = {"kills": 0, "while saving": 0, "before training": 0, "steps redone": 0}
    resumable, reached, begun = 0, 0, time.perf_counter()
    while True:
        code, out, err, last = live_and_die(
            killed, cache, draw, kill=counts["kills"] < KILLS
        )
        resumed = re.search(r"resuming .* at step (\d+)\n", out)
        if last is not None:
            # The newest whole checkpoint is gone on with, whatever a kill left there,
            # and no older than the save before the one that was under way.
            first = int(resumed[1]) if resumed else 0
            assert first == resumable
            assert reached - first < 2 * SAVE_EVERY
            counts["steps redone"] += max(0, reached - first)
            reached = last
        assert err == "" or code == 0, err
        if code == 0:
            break
        assert code == -9, err
        counts["kills"] += 1
        counts["before training"] += last is None
        unfinished = (killed / "checkpoints").glob("*.orbax-checkpoint-tmp*")
        counts["while saving"] += any(unfinished)
        resumable = saved(killed)
        print(counts, "saved", resumable, "reached", reached, flush=True)
    assert err == ""
    assert counts["kills"] == KILLS, "it finished too early: ask for more STEPS"
    left = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert left == sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert final_bytes(killed) == final_bytes(whole)
    assert records(killed) == records(whole)
    return counts | {"seconds": round(time.perf_counter() - begun)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_random_ends_with_the_same_bytes(tmp_path):
    print(soak(tmp_path))


if __name__ == "__main__":
    backend.quieten()
    with tempfile.TemporaryDirectory() as folder:
        print(soak(Path(folder)))
