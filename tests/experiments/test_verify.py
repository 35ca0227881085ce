"""verify.py from the command line."""

import json
import subprocess
import sys

import pytest

from cnnjax.ops import lrn
from verification import operations


def test_it_passes_and_writes_what_it_found(call, tmp_path) -> None:
    out = tmp_path / "new" / "found.json"
    done = call("verify.py", "--only=machine", f"--out={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["passed"] and found["versions"]["jax"]
    assert found["devices"]["platform"] == "cpu"
    names = [row["check"] for row in found["checks"]]
    assert names == ["sums that jaxlib 0.10.2 gets wrong", "memory at the peak, of all"]
    assert all(row["error"] <= row["bound"] for row in found["checks"])
    assert "PASS  machine     sums that jaxlib" in done.stdout
    assert "2 of 2 checks passed" in done.stdout


def test_a_broken_operation_exits_with_1_and_names_the_row(
    call, monkeypatch, tmp_path
) -> None:
    powers = lrn._powers
    monkeypatch.setattr(lrn, "_powers", lambda y, beta: powers(y, beta - 0.01))
    rows = [row for row in operations.checks() if row.name.startswith("LRN")]
    monkeypatch.setattr(operations, "checks", lambda: rows)
    out = tmp_path / "found.json"
    done = call("verify.py", "--only=operations", f"--out={out}")
    assert done.returncode == 1
    assert "FAIL  operations  LRN, beta 0.75" in done.stdout
    assert done.stderr == (
        "error: 3 of 3 checks failed: LRN, beta 0.5; LRN, beta 0.75; LRN, beta 1.3\n"
    )
    found = json.loads(out.read_text())
    assert not found["passed"]
    assert not any(row["passed"] for row in found["checks"])


def test_what_it_cannot_check_is_said(call, tmp_path) -> None:
    done = call("verify.py", "--only=operations,weather")
    assert done.returncode == 2
    assert done.stderr.startswith("error: got --only=operations,weather, need some of")
    (tmp_path / "file").touch()
    done = call("verify.py", f"--out={tmp_path}/file/found.json")
    assert done.returncode == 2
    assert "can be written" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute and a half on two idle cores
def test_all_of_it_passes_without_tensorflow(environment, scripts, tmp_path) -> None:
    program = """
import runpy, sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
sys.argv = sys.argv[1:]
sys.path.insert(0, str(__import__("pathlib").Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(scripts / "verify.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    found = json.loads((tmp_path / "runs" / "verify.json").read_text())
    groups = {row["group"] for row in found["checks"]}
    assert groups == {"operations", "networks", "training", "machine", "speed"}
    speed = [row for row in found["checks"] if row["group"] == "speed"]
    assert all(row["images_per_second"] > 0 for row in speed)
