"""Checks that this machine computes rightly, and measures how fast it trains.

python experiments/verify.py

--only=GROUPS     some of operations,networks,training,machine,speed, with commas [all]
--out=FILE        JSON with versions, devices and all figures [runs/verify.json]

Operations, gradients, networks and training steps are compared with references in NumPy
and float64 that share nothing with the library. Neither a data set nor TensorFlow is
needed. The exit code is 0 if every check passes, and 1 if not.
"""

import json
import time
from pathlib import Path

from cnnjax import cli
from cnnjax.errors import InputError, RunError
from cnnjax.runtime import backend
from cnnjax.workdir import files

GROUPS = ("operations", "networks", "training", "machine", "speed")
TIMED = ("base", "mnist")


def run(arguments: list[str], only: str, out: str) -> None:
    """Runs the checks, prints and writes what they found.

    Raises:
        InputError: there is no such group, or `out` cannot be written.
        RunError: a check has failed.
    """
    del arguments  # none are taken
    groups = only.split(",") if only else list(GROUPS)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise InputError(f"got --only={only}, need some of {','.join(GROUPS)}")
    if Path(out).is_dir():
        raise InputError(f"got --out={out}, a folder, need a file; name one in it")
    path, start = Path(out), time.perf_counter()
    with files.writing(path, "out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # fails now rather than after a minute
    # What is checked is compiled by this machine, now.
    backend.start(compile_cache=False)
    # Here and not above, so that --help need not wait for JAX.
    from verification import check, machine, networks, operations, training

    checks = {
        "operations": operations.checks,
        "networks": networks.checks,
        "training": training.checks,
        "machine": machine.checks,
        "speed": lambda: machine.timings([cli.recipe(name) for name in TIMED]),
    }
    about, rows, failed = machine.describe(), [], []
    print(check.heading(about), flush=True)
    for group in groups:
        rows += check.perform(group, checks[group]())
        failed = [row["check"] for row in rows if not row["passed"]]
        seconds = time.perf_counter() - start
        # After each group, so that a time limit does not lose those before it.
        found = {"passed": not failed, "seconds": seconds, "checks": rows}
        path.write_text(json.dumps(about | found, indent=2) + "\n")
    check.print_summary(rows)
    print(f"{len(rows) - len(failed)} of {len(rows)} checks passed in {seconds:.0f} s")
    print(f"wrote {path}")
    if failed:
        raise RunError(
            f"{len(failed)} of {len(rows)} checks failed: {'; '.join(failed)}"
        )


if __name__ == "__main__":
    cli.main_with(run, doc=__doc__, options={"only": "", "out": "runs/verify.json"})
