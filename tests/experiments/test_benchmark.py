"""The benchmark from the command line."""

import json
import re

import pytest


# The README's own command is a quicker look, and runs in test_readme.py.
@pytest.mark.slow
def test_it_prints_a_table_and_writes_json_and_a_chart(call, tmp_path) -> None:
    out = tmp_path / "out"
    done = call("benchmark.py", "--only=operations", "--rounds=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "benchmark.json").read_text())
    group = result["groups"]["operations"]
    assert len(group["cases"]) == 7
    for case, row in group["cases"].items():
        times = row["milliseconds"]
        assert 0 < times["min"] <= times["median"] <= times["max"]
        assert case in done.stdout
    assert group["ratios"]["pool 3x3/2 / nn.max_pool 3x3/2"] > 2
    assert "pool 3x3/2 / nn.max_pool 3x3/2: " in done.stdout
    assert result["versions"]["jax"] and result["machine"]["cores"]
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_what_it_cannot_measure_is_said(call) -> None:
    done = call("benchmark.py", "--only=networks,speed")
    assert done.returncode == 2
    assert "got --only=networks,speed and --rounds=20, need some of" in done.stderr


def test_it_asks_first_whether_it_can_write(call, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        done = call("benchmark.py", f"--out={out}")
        assert done.returncode == 2
        assert re.fullmatch(r"error: .*need a folder that can be .*\n", done.stderr)
