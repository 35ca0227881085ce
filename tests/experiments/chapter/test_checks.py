"""Intervals by the tables, and what each verdict takes."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from chapter import checks
from chapter.checks import Check, contrast


@pytest.mark.parametrize(
    # Student's 97.5% quantiles for n - 1 degrees of freedom, from printed tables.
    ("n", "quantile"),
    [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262), (30, 2.045)],
)
def test_the_interval_is_student_s(n: int, quantile: float) -> None:
    values = np.random.default_rng(n).normal(5, 2, n)
    mean, std, low, high = checks.interval(values)
    total = sum(values)
    assert mean == pytest.approx(total / n)
    assert std == pytest.approx(math.sqrt(sum((values - total / n) ** 2) / (n - 1)))
    half = quantile * std / math.sqrt(n)
    assert (low, high) == pytest.approx((mean - half, mean + half), rel=1e-3)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    random, inside = np.random.default_rng(0), 0
    for _ in range(4000):
        _, _, low, high = checks.interval(random.normal(0.7, 0.1, 4))
        inside += low <= 0.7 <= high
    # Five standard deviations of a share of 0.95 in 4,000.
    assert abs(inside / 4000 - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 4000)


LOOKS = (4, 8, 16)


def test_the_error_is_divided_among_the_looks() -> None:
    shares = [checks.planned(LOOKS)(seeds) for seeds in LOOKS]
    assert shares == pytest.approx([0.05 / 7, 0.1 / 7, 0.2 / 7])
    assert sum(shares) == pytest.approx(0.05)
    values = [0.3, 0.1, 0.2, 0.6]
    # Student's distribution with three degrees of freedom can be written out.
    mean, std, _, high = checks.interval(values, error=shares[0])
    quantile = (high - mean) / (std / 2)
    x = quantile / math.sqrt(3)
    below = 0.5 + (x / (1 + x * x) + math.atan(x)) / math.pi
    assert below == pytest.approx(1 - shares[0] / 2, rel=1e-9)
    # One look is the plain interval.
    alone = checks.interval(values, error=checks.planned((4,))(4))
    assert alone == checks.interval(values)
    # No look has no error; a further one is the last of a longer plan.
    assert checks.planned(LOOKS)(5) == 0
    assert checks.planned(LOOKS)(20) == checks.planned((*LOOKS, 20))(20) < 0.05
    # Who looks at every number of seeds has spent no more after any of them.
    spent = np.cumsum([checks.at_every(seeds) for seeds in range(2, 10_000)])
    assert spent[:2] == pytest.approx([0.025, 0.05 / 2 + 0.05 / 6])
    assert spent[-1] == pytest.approx(0.05, rel=1e-3) and (spent < 0.05).all()


def missed_at_some_look(looks: Sequence[int], error: checks.Spending) -> float:
    """How often one who stops at the first interval without the mean has one."""
    random, missed = np.random.default_rng(0), 0
    for values in random.normal(0.7, 0.1, (2000, looks[-1])):
        for seeds in looks:
            _, _, low, high = checks.interval(values[:seeds], error=error(seeds))
            if not low <= 0.7 <= high:
                missed += 1
                break
    return missed / 2000


def test_intervals_cover_the_mean_however_one_stops() -> None:
    # Five standard deviations of a share of 0.05 in 2,000.
    tolerance = 5 * math.sqrt(0.05 * 0.95 / 2000)
    shared = missed_at_some_look(LOOKS, checks.planned(LOOKS))
    # Not wider than need be, either: the last look alone may miss in 0.05 * 4 / 7.
    assert 0.05 * 4 / 7 - tolerance < shared < 0.05 + tolerance
    # Without that, looking three times would miss far more often.
    assert missed_at_some_look(LOOKS, checks.at_once) > 0.05 + tolerance
    # The same of runs that are recorded one by one.
    each = range(2, 6)
    assert missed_at_some_look(each, checks.at_every) < 0.05 + tolerance
    assert missed_at_some_look(each, checks.at_once) > 0.05 + tolerance


BAND = Check("accuracy", 0.991, 0.993, "%", steps=20_000, dataset="mnist")


def verdict(check: Check, values: list[float], steps: int = 20_000, on: str = "mnist"):
    return checks.judge(check, values, steps=steps, dataset=on)["verdict"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9919, 0.9920, 0.9921], checks.HOLDS),
        ([0.9919, 0.9920, 0.9931], checks.UNTOLD),  # the interval leaves the band
        ([0.9880, 0.9890, 0.9900], checks.UNTOLD),  # the mean is outside, not the ends
        ([0.9899, 0.9900, 0.9901], checks.FAILS),
        ([0.9949, 0.9950, 0.9951], checks.FAILS),
        ([0.9920], checks.UNTOLD),  # one seed tells nothing
    ],
)
def test_a_band(values: list[float], expected: str) -> None:
    assert verdict(BAND, values) == expected


def test_a_band_of_other_steps_or_data_is_not_judged() -> None:
    values = [0.9919, 0.9920, 0.9921]
    assert verdict(BAND, values, steps=19_999) == checks.TOO_SHORT
    assert verdict(BAND, values, on="digits") == checks.OTHER_DATA


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.01, 0.012, 0.011], checks.HOLDS),
        ([-0.01, -0.012, -0.011], checks.FAILS),
        ([0.01, -0.012, 0.011], checks.UNTOLD),
        ([0.0, 0.0, 0.0], checks.UNTOLD),  # no difference is not more than none
    ],
)
def test_a_contrast_of_any_real_data(values: list[float], expected: str) -> None:
    check = contrast("with - without", steps=3000)
    assert verdict(check, values, steps=3000, on="cifar10") == expected
    assert verdict(check, values, steps=2999, on="cifar10") == checks.TOO_SHORT
    # Embedded pictures say nothing about a claim, unless nothing was trained on them.
    assert verdict(check, values, steps=3000, on="shapes") == checks.OTHER_DATA
    timing = contrast("with - without")
    assert verdict(timing, values, steps=0, on="shapes") == expected


def test_what_did_not_learn_is_not_judged() -> None:
    check, values = contrast("with - without", steps=3000), [0.01, 0.012, 0.011]

    def verdict(steps: int) -> str:
        judged = checks.judge(
            check, values, steps=steps, dataset="cifar10", learned=False
        )
        assert judged["values"] == values
        return judged["verdict"]

    assert verdict(3000) == checks.UNLEARNED
    assert verdict(2999) == checks.TOO_SHORT


@pytest.mark.parametrize(
    # Mean, standard deviation; how many seeds put the mean so far from a band's end.
    ("mean", "std"),
    [(0.01, 0.02), (-0.01, 0.02), (0.03, 0.02)],
)
def test_undecided_it_says_how_many_seeds_would_tell(mean: float, std: float) -> None:
    check = Check("gap", 0.0, 0.04, "points")
    values = mean + std / math.sqrt(2) * np.array([1.0, -1.0])

    def told(n: int, error: checks.Spending) -> bool:
        # As many values with the same mean and deviation.
        spread = np.resize([1.0, -1.0], n - n % 2)
        if n % 2:
            spread = np.append(spread, 0.0)
        spread = mean + spread * std / spread.std(ddof=1)
        judged = checks.judge(check, spread, steps=0, dataset="", error=error)
        return judged["verdict"] != checks.UNTOLD

    for error in (checks.planned(LOOKS), checks.at_every, checks.at_once):
        needed = checks.seeds_needed(check, values, error=error)
        assert needed
        assert told(needed, error) and not told(needed - 1, error)
    # Of a plan it is a look, even where fewer seeds would tell who planned for them.
    planned = checks.planned((2, 100))
    assert checks.seeds_needed(check, values, error=planned) == 100


def test_two_seeds_are_enough_where_they_tell() -> None:
    assert checks.seeds_needed(contrast("a - b"), [1.0, 1.0 + 1e-6]) == 2


def test_a_look_is_written_and_continued_at_its_own_error() -> None:
    check, values = contrast("a - b"), [0.3, 0.1, 0.2, 0.6]
    found = []
    for error in (checks.planned(LOOKS), checks.at_once):
        judged = checks.judge(check, values, steps=0, dataset="", error=error)
        _, _, low, high = checks.interval(values, error=error(4))
        assert judged["interval"] == [low, high]
        seeds = checks.seeds_needed(check, values, error=error)
        assert judged["needs"] == {"seeds": seeds}
        found.append((seeds, high))
    assert found[0] > found[1], "a part of the error takes more seeds"


def test_what_a_judgement_would_take() -> None:
    def needs(check: Check, values: list[float], steps: int, on: str) -> dict:
        return checks.judge(check, values, steps=steps, dataset=on)["needs"]

    values = [0.9919, 0.9920, 0.9921]
    assert needs(BAND, values, 19_999, "mnist") == {"steps": 20_000}
    assert needs(BAND, values, 20_000, "digits") == {"dataset": "mnist"}
    assert needs(BAND, values, 20_000, "mnist") == {}
    assert needs(BAND, [0.992], 20_000, "mnist") == {"seeds": 2}
    # At an end of the band no number of seeds tells.
    at_the_end = [0.991 - 0.001, 0.991, 0.991 + 0.001]
    assert needs(BAND, at_the_end, 20_000, "mnist") == {"seeds": None}
    assert needs(contrast("a - b"), [0.0, 0.0], 0, "") == {"seeds": None}


def test_what_is_counted_has_no_interval() -> None:
    exact = Check("weights", 100, 100, exact=True)
    assert verdict(exact, [100]) == checks.HOLDS
    assert verdict(exact, [101]) == checks.FAILS


def test_a_claim_holds_only_as_a_whole() -> None:
    assert checks.overall([checks.HOLDS, checks.HOLDS]) == checks.HOLDS
    assert checks.overall([checks.HOLDS, checks.UNTOLD]) == checks.UNTOLD
    assert checks.overall([checks.OTHER_DATA, checks.HOLDS]) == checks.OTHER_DATA
    assert checks.overall([checks.UNTOLD, checks.FAILS]) == checks.FAILS


def test_what_is_written_is_json() -> None:
    import json

    judged = checks.judge(contrast("a - b"), [0.1], steps=1, dataset="shapes")
    assert judged["band"] == [0.0, None]
    assert judged["interval"] == [None, None] and judged["std"] is None
    json.dumps(judged, allow_nan=False)
