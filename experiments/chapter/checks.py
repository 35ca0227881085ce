"""What a claim comes to, said before anything is run, and the verdict on it."""

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

# One a seed.
Values = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Check:
    """A quantity and the band in which a claim puts it.

    Attributes:
        what: the quantity, in words.
        low: lower end of the band.
        high: upper end of the band; infinite for "more than `low`".
        unit: "%" for a fraction and "points" for a difference of fractions, both
            shown times 100; else as it is shown behind the number.
        steps: of training that the claim speaks of; after fewer it is not judged.
        dataset: of which the claim gives the quantity; that of another is not judged.
            "" where any will do.
        exact: one value without an interval: it is counted.
    """

    what: str
    low: float
    high: float = INFINITY
    unit: str = ""
    steps: int = 0
    dataset: str = ""
    exact: bool = False


def contrast(what: str, unit: str = "points", *, steps: int = 0) -> Check:
    """Returns the check that a difference, paired by seed, is more than zero."""
    return Check(what, 0.0, unit=unit, steps=steps)


def interval(values: Values) -> tuple[float, float, float, float]:
    """Returns mean, standard deviation, and the ends of the 95% interval of the mean.

    mean +- t * std / sqrt(n), with t the 97.5% quantile of Student's distribution with
    n - 1 degrees of freedom and std that of the sample (n - 1). One value alone has
    an infinite interval.

    Args:
        values: one a seed; of a contrast, the differences of the pairs.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, -INFINITY, INFINITY
    std = float(np.std(values, ddof=1))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    half = quantile * std / math.sqrt(len(values))
    return mean, std, mean - half, mean + half


def judge(
    check: Check, values: Values, *, steps: int, dataset: str, learned: bool = True
) -> dict[str, Any]:
    """Returns a check and what was measured of it, as JSON, with a verdict.

    "holds" where the whole interval lies inside the band (above `low` where it has no
    upper end), "does not hold" where all of it lies outside on one side, else "cannot
    be told at this n". What was trained on embedded pictures is not judged.

    Args:
        check: what was said before.
        values: what was measured, one a seed.
        steps: of the training.
        dataset: that it was measured on.
        learned: False where a network that is compared stayed at chance: a difference
            from it is none of what the claim speaks of.
    """
    mean, std, low, high = interval(values)
    if check.exact:
        std, low, high = 0.0, mean, mean
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
    return {
        "what": check.what,
        "unit": check.unit,
        "band": [check.low, _finite(check.high)],
        "values": [float(value) for value in values],
        "mean": mean,
        "std": _finite(std),
        "interval": [_finite(low), _finite(high)],
        "verdict": verdict,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def overall(verdicts: Sequence[str]) -> str:
    """Returns the verdict on a claim that comes to several checks.

    It holds where all hold, and does not where one does not; else it is the first
    reason why it cannot be told.
    """
    if FAILS in verdicts:
        return FAILS
    return next((verdict for verdict in verdicts if verdict != HOLDS), HOLDS)
