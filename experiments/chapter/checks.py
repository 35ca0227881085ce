"""Checks: quantities with bands that are stated before measuring, and verdicts."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from cnnjax.data.load import EMBEDDED

HOLDS = "holds"
FAILS = "does not hold"
UNTOLD = "cannot be told at this n"
TOO_SHORT = "cannot be told in so few steps"
UNLEARNED = "cannot be told of what did not learn"
OTHER_DATA = "another data set"

CONFIDENCE = 0.95
INFINITY = math.inf

# One value per seed.
Values = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Check:
    """A quantity and the band in which the claim expects it.

    Attributes:
        what: the quantity, in words.
        low: lower end of the band.
        high: upper end of the band; infinity means "more than `low`".
        unit: "%" for a fraction and "points" for a difference of fractions, both
            shown times 100; any other text is printed behind the number.
        steps: the claim is judged only after at least this many training steps.
        dataset: the claim is judged only on this data set; "" means on any.
        exact: whether the value is counted, so that it needs no interval.
    """

    what: str
    low: float
    high: float = INFINITY
    unit: str = ""
    steps: int = 0
    dataset: str = ""
    exact: bool = False

    @property
    def band(self) -> list[float | None]:
        """[low, high] as JSON has it: None in place of infinity."""
        return [self.low, _finite(self.high)]


def contrast(what: str, unit: str = "points", *, steps: int = 0) -> Check:
    """Returns the check that a difference, paired by seed, is greater than zero."""
    return Check(what, 0.0, unit=unit, steps=steps)


def interval(
    values: Values, *, exact: bool = False
) -> tuple[float, float, float, float]:
    """Returns mean, standard deviation, and the 95% confidence interval of the mean.

    mean +- t * std / sqrt(n), where t is the 97.5% quantile of Student's distribution
    with n - 1 degrees of freedom and std the sample standard deviation (divisor n - 1).
    For a single value the interval is infinite and std is NaN; but where values are
    `exact`, being counted, it is the mean alone.
    """
    mean = float(np.mean(values))
    if exact:
        return mean, 0.0, mean, mean
    if len(values) < 2:
        return mean, math.nan, -INFINITY, INFINITY
    std = float(np.std(values, ddof=1))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    half = quantile * std / math.sqrt(len(values))
    return mean, std, mean - half, mean + half


def judge(
    check: Check, values: Values, *, steps: int, dataset: str, learned: bool = True
) -> dict[str, Any]:
    """Returns a check, its measurement and the verdict, ready for JSON.

    The verdict is "holds" if the whole interval lies inside the band (above `low` if
    the band has no upper end), "does not hold" if it lies entirely on one side of the
    band, and otherwise "cannot be told at this n". Other verdicts say why nothing was
    judged: too few steps, another data set (embedded pictures count as another one as
    soon as anything was trained), or `learned=False`.

    Args:
        check: what was stated beforehand.
        values: the measurements, one per seed.
        steps: number of training steps; 0 if nothing was trained.
        dataset: name of the data set that was used.
        learned: False if one of the compared networks stayed at chance, because a
            difference from it then says nothing about the claim.
    """
    _, _, low, high = interval(values, exact=check.exact)
    above = low >= check.low if math.isfinite(check.high) else low > check.low
    stand_in = steps > 0 and dataset in EMBEDDED
    if steps < check.steps:
        verdict = TOO_SHORT
    elif stand_in or (check.dataset and dataset != check.dataset):
        verdict = OTHER_DATA
    elif not learned:
        verdict = UNLEARNED
    elif above and high <= check.high:
        verdict = HOLDS
    elif high < check.low or low > check.high:
        verdict = FAILS
    else:
        verdict = UNTOLD
    known = described(check.what, check.unit, values, exact=check.exact)
    return {**known, "band": check.band, "verdict": verdict}


def described(
    what: str, unit: str, values: Values, *, exact: bool = False
) -> dict[str, Any]:
    """Returns a quantity, its values and their `interval`, ready for JSON."""
    mean, std, low, high = interval(values, exact=exact)
    return {
        "what": what,
        "unit": unit,
        "values": [float(value) for value in values],
        "mean": mean,
        "std": _finite(std),
        "interval": [_finite(low), _finite(high)],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def overall(verdicts: Sequence[str]) -> str:
    """Returns the verdict on a claim that has several checks.

    "does not hold" if any check fails, "holds" if all hold, otherwise the first verdict
    that is neither.
    """
    if FAILS in verdicts:
        return FAILS
    return next((verdict for verdict in verdicts if verdict != HOLDS), HOLDS)
