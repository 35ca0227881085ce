"""Alternation, medians and ratios, on a clock that the test turns."""

import numpy as np
import pytest

from speed import timing
from speed.timing import Case, Times, alternate, compare, row


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what `spend` adds."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    return spend


def test_cases_take_turns_and_short_ones_are_repeated(clock) -> None:
    calls = []

    def case(name, seconds):
        return Case(name, lambda: (calls.append(name), clock(seconds)))

    timed = alternate([case("long", 1.0), case("short", 0.12)], 2)
    warm = ["long", "short"] * 2
    assert calls == [*warm, "long", *["short"] * 3, *["short"] * 3, "long"]
    assert timed["long"].first == 1.0
    np.testing.assert_allclose(timed["long"].seconds, [1.0, 1.0])
    np.testing.assert_allclose(timed["short"].seconds, [0.12, 0.12])


def test_figures_are_medians_and_ratios_are_taken_round_by_round() -> None:
    ours = Times(
        Case("ours", print, images=10, flops=1e9), 9.0, np.array([1.0, 2.0, 4.0])
    )
    theirs = Times(Case("theirs", print, images=5), 9.0, np.array([2.0, 1.0, 3.0]))
    peak = Times(Case("peak", print, flops=4e9), 9.0, np.array([1.0, 1.0, 1.0]))
    values = row(ours, peak)
    assert values["milliseconds"] == {"median": 2e3, "min": 1e3, "max": 4e3}
    assert values["images_per_second"] == 5.0
    assert values["gflops_per_second"] == 0.5
    assert values["share_of_peak"] == 0.125
    assert values["first_seconds"] == 9.0
    # An image: ours 0.1, 0.2, 0.4 s, theirs 0.4, 0.2, 0.6 s.
    pairs = [("ours", "theirs"), ("ours", "not installed")]
    ratios = compare({"ours": ours, "theirs": theirs}, pairs)
    assert ratios == {"ours / theirs": pytest.approx(1.5)}
