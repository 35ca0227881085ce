"""When a check fails, and what is printed of it."""

import math

import pytest

from verification import check
from verification.check import Check, Outcome


def test_the_worst_part_is_found() -> None:
    parts = {
        "far": ([3.0, 4.0], [3.0, 4.1], 1.0),
        "near": ([1.0], [1.001], 0.002),
    }
    found = check.worst(parts)
    assert (found.note, found.bound) == ("near", 0.002)
    assert found.error == pytest.approx(0.001 / 1.001)
    exact = {"exact": ([1.0 + 1e-15], [1.0], 0.0)}
    assert not check.worst(parts | exact).passed
    assert check.worst(parts | exact).note == "exact"
    assert check.worst({"none": ([0.0], [0.0], 0.0)}).passed


def test_nan_and_another_shape_fail() -> None:
    found = check.worst({"good": ([1.0], [1.0], 1.0), "bad": ([math.nan], [1.0], 1.0)})
    assert (found.passed, found.note) == (False, "bad")
    with pytest.raises(ValueError, match=r"got the shape \(2,\), need \(1,\)"):
        check.relative([1.0, 1.0], [1.0])


def test_a_crash_is_a_failure_of_its_row(capsys) -> None:
    def crash() -> Outcome:
        raise RuntimeError("out of\nmemory")

    good = Check("a good one", lambda: Outcome(1e-7, 1e-6))
    rows = check.perform("operations", [Check("a bad one", crash), good])
    check.print_summary(rows)
    bad, fine = rows
    assert (bad["passed"], bad["error"]) == (False, None)
    assert bad["note"] == "RuntimeError: out of memory"
    assert fine["passed"]
    out = capsys.readouterr().out
    assert "FAIL  operations: a bad one: RuntimeError: out of memory" in out
    lines = out.splitlines()
    assert [line[:4] for line in lines[:2]] == ["FAIL", "PASS"]
    assert all(len(line) <= 80 for line in lines)


def test_bounds_grow_as_roundings_do() -> None:
    assert check.sum_bound(400) == 20 * check.sum_bound(1)
    assert check.sum_bound(1, check.TF32) > 4 * check.TF32
    for wide, leaves in ((True, check.LEAF_WINOGRAD), (False, check.LEAF)):
        bounds = check.network_bounds(check.FLOAT32, wide=wide)
        assert bounds == (check.LEAF, leaves)
    assert check.network_bounds(check.BFLOAT16, wide=True) == (8 / 256, 4 / 16)
