"""Intervals by the tables, and what each verdict takes."""

import math

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


BAND = Check("accuracy", 0.991, 0.993, "%", steps=20_000, dataset="mnist")


def verdict(check: Check, values: list[float], steps: int = 20_000, on: str = "mnist"):
    return checks.judge(check, values, steps=steps, dataset=on)["verdict"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9919, 0.9920, 0.9921], checks.HOLDS),
        ([0.9919, 0.9920, 0.9931], checks.UNTOLD),  # the interval leaves the band
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
    assert verdict(check, values, steps=3000, on="cifar10_jpeg") == expected
    assert verdict(check, values, steps=2999, on="cifar10_jpeg") == checks.TOO_SHORT
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
