import json

import numpy as np
import pytest

from cnnjax.reporting.curves import Curve, curve, over_seeds, read_metrics, smooth


def test_lines_that_are_torn_are_counted_and_passed_over(tmp_path):
    file = tmp_path / "metrics.jsonl"
    torn = ['{"step": 20, "train/lo', "[1]", '{"step": "x"}', "[" * 100_000]
    whole = [json.dumps({"step": step, "a": 1.0}) for step in (0, 10)]
    file.write_text("\n".join([*whole, *torn]))
    records, count = read_metrics(file)
    assert [record["step"] for record in records] == [0, 10]
    assert count == len(torn)
    assert read_metrics(tmp_path / "nowhere.jsonl") == ([], 0)


def test_a_curve_is_of_the_lines_that_have_it():
    records = [
        {"step": 0, "a": 1.0},
        {"step": 5, "b": 9.0},
        {"step": 10, "a": None},
        {"step": 20, "a": 3.0},
    ]
    found = curve(records, "a")
    assert (found.steps.tolist(), found.values.tolist()) == ([0, 20], [1.0, 3.0])
    assert found.deviation is None
    assert curve(records, "c") is None


def test_a_run_of_several_seeds_gives_its_own_mean_and_deviation():
    records = [{"step": 0, "a": [1.0, 3.0], "a/mean": 2.0, "a/std": 1.4}]
    found = curve(records, "a")
    assert (found.values.tolist(), found.deviation.tolist()) == ([2.0], [1.4])


def test_runs_of_other_seeds_are_a_mean_with_a_sample_deviation():
    first = Curve(np.array([0, 10, 20]), np.array([1.0, 2.0, 3.0]), None)
    second = Curve(np.array([0, 20, 30]), np.array([2.0, 7.0, 9.0]), None)
    both = over_seeds([first, second])
    assert both.steps.tolist() == [0, 20]
    assert both.values.tolist() == [1.5, 5.0]
    # |a - b| / sqrt(2), which is what n - 1 gives for two.
    assert both.deviation == pytest.approx([1 / np.sqrt(2), 4 / np.sqrt(2)])
    assert over_seeds([first]) is first


@pytest.mark.parametrize("width", [1, 3, 9, 101])
def test_a_running_mean_is_centred_and_keeps_its_window_at_the_end(width):
    values = np.random.default_rng(0).normal(size=40)
    smoothed, half = smooth(values, width), min(width // 2, 19)
    for place in range(40 - half):
        near = min(half, place)
        by_hand = values[place - near : place + near + 1].mean()
        assert smoothed[place] == pytest.approx(by_hand)
    last = values[-(2 * half + 1) :].mean()
    np.testing.assert_allclose(smoothed[40 - 1 - half :], last)
    # So one batch moves the end by no more than its share of a window.
    moved = smooth(values + 9 * (np.arange(40) == 39), width) - smoothed
    assert abs(moved).max() == pytest.approx(9 / (2 * half + 1))
