"""The script for a GPU machine, with a program in Python's place that does nothing."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "experiments" / "speed" / "gpu.sh"

# Fails where base.py is to be trained, and makes a folder for each run. It does run the
# program that the script gives on stdin.
PYTHON = f"""#!/bin/sh
[ "$1" = - ] && exec {sys.executable} "$@"
for flag; do
    case $flag in
        --workdir=*) mkdir -p "${{flag#--workdir=}}/checkpoints"
            echo '{{}}' >"${{flag#--workdir=}}/config.json" ;;
        --config=configs/base.py) exit 1 ;;
    esac
done
"""


@pytest.fixture
def run(tmp_path):
    """Returns (part, **variables) -> the finished script; KEPT and OUT are folders."""
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(part, **variables):
        environment = {
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "KEPT": str(tmp_path / "kept"),
            "OUT": str(tmp_path / "out"),
        }
        return subprocess.run(
            ["bash", str(SCRIPT), part],
            cwd=ROOT,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_part_that_is_none_is_refused(run) -> None:
    done = run("3")
    assert done.returncode == 2
    assert done.stderr == "error: got part 3, need 1 or 2\n"


def test_a_command_that_fails_does_not_stop_the_others(run, tmp_path) -> None:
    done = run("2", SEEDS="1", STEPS="2")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "out" / "log.txt").read_text()
    assert re.findall(r"== exit (\d+)", log) == ["1", "0", "0", "0", "0", "0"]
    assert (
        log.count("--config.num_seeds=1 ") == log.count("--config.train.steps=2") == 6
    )
    with tarfile.open(tmp_path / "out" / "runs.tgz") as packed:
        names = packed.getnames()
    assert "runs/long-2/config.json" in names
    assert not [name for name in names if "checkpoints" in name]


@pytest.mark.parametrize(("ratio", "batched"), [(1.5, True), (0.5, False), (0, False)])
def test_seeds_are_batched_where_that_was_faster(run, tmp_path, ratio, batched) -> None:
    if ratio:  # else nothing was measured
        ratios = {"16 seeds, vmap / 16 seeds, looped": ratio}
        measured = tmp_path / "kept" / "benchmark" / "benchmark.json"
        measured.parent.mkdir(parents=True)
        measured.write_text(json.dumps({"groups": {"seeds": {"ratios": ratios}}}))
    assert run("2").returncode == 0
    log = (tmp_path / "out" / "log.txt").read_text()
    assert log.count(f"--config.parallel.vmap_seeds={batched}") == 6


def test_a_part_takes_at_most_five_minutes() -> None:
    both, first, second = re.split(r'\n(?:el)?if \[ "\$part" = .*', SCRIPT.read_text())
    limit = re.compile(r"\b(?:limited|timed \w+|trained [\w-]+) (\d+) ")
    shared = limit.findall(both)
    for part in (first, second):
        limits = [int(seconds) for seconds in shared + limit.findall(part)]
        assert len(limits) >= 6
        assert sum(limits) <= 300
