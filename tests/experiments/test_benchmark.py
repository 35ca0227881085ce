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
    assert len(group["cases"]) == 9
    for case, row in group["cases"].items():
        times = row["milliseconds"]
        assert 0 < times["min"] <= times["median"] <= times["max"]
        assert case in done.stdout
    assert group["ratios"]["pool 3x3/2 / nn.max_pool 3x3/2"] > 2
    assert "pool 3x3/2 / nn.max_pool 3x3/2: " in done.stdout
    assert result["versions"]["jax"] and result["machine"]["cores"]
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_calls_and_kernels_are_measured(call, tmp_path) -> None:
    flags = (
        "--only=seeds,calls,kernels",
        "--rounds=1",
        f"--profile={tmp_path / 'kept'}",
    )
    done = call("benchmark.py", *flags, f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    groups = json.loads((tmp_path / "benchmark.json").read_text())["groups"]
    assert groups["seeds"]["ratios"].keys() == {
        *("4 seeds, looped / 1 seed", "4 seeds, vmap / 1 seed"),
        "4 seeds, vmap / 4 seeds, looped",
    }
    for row in groups["calls"]["cases"].values():
        assert row["milliseconds_per_step"] * row["images_per_second"] == pytest.approx(
            128e3
        )
    programs = groups["kernels"]["programs"]
    assert len(programs) == 4
    for program, found in programs.items():
        assert len(found["top"]) == 10
        assert found["kernels_per_step"] == found["launches_per_step"]
        assert f"kernels: {program}, {found['kernels_per_step']} in" in done.stdout
    assert len(list((tmp_path / "kept").glob("*/plugins/profile/*/*.xplane.pb"))) == 4


def test_traces_are_kept_of_the_kernels_only(call) -> None:
    done = call("benchmark.py", "--only=networks", "--profile=traces")
    assert done.returncode == 2
    assert "got --profile=traces and --only=networks, need the group k" in done.stderr


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
