"""Ten thousand times one file of a checkpoint is damaged: never a wrong state.

python tests/corruption.py [TRIALS]      or      pytest -m slow -s tests/corruption.py
"""

import collections
import itertools
import queue
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cnnjax.errors import InputError, RunError
from cnnjax.workdir.checkpoints import Checkpoints
from cnnjax.workdir.integrity import digest

RUN = {"config": "0" * 64, "data": "1" * 64, "seed": 2}
WORKERS, SECONDS, BYTES = 2, 60, 16 * 2**30


def new_state(seed):
    """Some 200 kB of random numbers, which hardly compress, as real ones do."""
    draw = np.random.default_rng(seed)
    shapes = {"hidden": (200, 100), "logits": (100, 10), "bias": (10,)}
    params = {k: draw.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    momentum = {k: draw.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    return {"step": np.array(seed, np.int32), "params": params, "opt_state": momentum}


def damage(files, trial):
    """Returns the path to damage in the trial, what is done, and what is left of it."""
    draw = random.Random(trial)
    path = draw.choice(sorted(files))
    kind = draw.choices(["flip", "truncate", "delete"], [8, 1, 1])[0]
    content = bytearray(files[path])
    if kind == "delete" or not content:
        return path, "delete", None
    if kind == "truncate":
        return path, kind, bytes(content[: draw.randrange(len(content))])
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    return path, kind, bytes(content)


def try_out(directory, trials):
    """Prints for each trial its damage and what came of it, on a line."""
    like, right = new_state(0), digest(new_state(1))
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    for trial in trials:
        path, kind, content = damage(files, trial)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        try:
            with Checkpoints(directory, run=RUN, read_only=True) as checkpoints:
                restored = checkpoints.restore_latest(like)
            same = restored is not None and digest(restored[0]) == right
            result = "exact" if same and restored[1] == {"trial": 0} else "WRONG"
        except (InputError, RunError) as error:
            result = "detected" if "\n" not in str(error) else "MANY LINES"
        except Exception as error:
            result = f"UNDOCUMENTED {type(error).__name__}"
        path.write_bytes(files[path])
        print(trial, kind, path.name[:12], result, sep="\t", flush=True)


class Worker:
    """A process that tries out trials, and is replaced where it crashes or hangs."""

    def __init__(self, first, last, results):
        self.first, self.last, self.results = first, last, results

    def __call__(self):
        while self.first < self.last:
            self._live()

    def _live(self):
        command = [sys.executable, __file__, "worker", str(self.first), str(self.last)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        lines = queue.Queue()

        def read():
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while self.first < self.last:
            try:
                line = lines.get(timeout=SECONDS)
            except queue.Empty:
                line = "HANG"
            if line is None or line == "HANG":
                process.kill()
                code = process.wait()
                line = f"{self.first}\t?\t?\t{line or f'CRASH {code}'}"
            self.results.append(line.strip().split("\t"))
            self.first += 1
            if "?" in self.results[-1]:
                break
        process.wait()


def corrupt(num_trials):
    """Returns (damage, result) -> how often."""
    begun, results = time.perf_counter(), []
    ends = np.linspace(0, num_trials, WORKERS + 1, dtype=int).tolist()
    workers = [
        threading.Thread(target=Worker(first, last, results))
        for first, last in itertools.pairwise(ends)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    counts = collections.Counter((kind, result) for _, kind, _, result in results)
    for result in results:
        if result[3] not in ("exact", "detected"):
            print(*result)
    seconds = time.perf_counter() - begun
    print(f"{len(results)} in {seconds:.0f} s, {len(results) / seconds:.1f} a second")
    return counts


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_damage_restores_a_wrong_state():
    counts = corrupt(10_000)
    assert {result for _, result in counts} == {"exact", "detected"}, counts
    assert sum(counts.values()) == 10_000


def main(argv):
    if argv[1:2] != ["worker"]:
        num_trials = int(argv[1]) if argv[1:] else 10_000
        for (kind, result), count in sorted(corrupt(num_trials).items()):
            print(f"{kind:10}{result:12}{count:6}")
        return
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        with Checkpoints(directory, run=RUN) as checkpoints:
            checkpoints.save(1, new_state(1), {"trial": 0})
        try_out(directory, range(int(argv[2]), int(argv[3])))


if __name__ == "__main__":
    main(sys.argv)
