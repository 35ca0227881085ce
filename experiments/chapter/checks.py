"""Checks: quantities with bands that are stated before measuring, and verdicts.

A quantity may be judged several times, each time with more seeds: at the looks of a
plan such as (4, 8, 16). Intervals of 95% at every look would miss the true mean at some
look in more than 5% of all cases, and whoever stops as soon as an interval suits would
stop at those. So the error of 5% is divided among the looks in proportion to their
seeds: 5% times 1/7, 2/7 and 4/7. By Bonferroni's inequality (the probability that any
of several events happens is at most the sum of their probabilities) the intervals of
all looks then cover the mean together in at least 95% of all cases, at whichever look
one stops and for whatever reason. With one look it is the plain interval of 95%.

Long runs are recorded one by one, and nobody knows how many there will be. The look at
n of them has 5% / (n (n - 1)), which also adds up to 5% over all n from 2 on.

Sources: Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials",
Biometrika 70(3), 659-663, for dividing the error among looks; Jennison and Turnbull
1989, "Interim analyses: the repeated confidence interval approach", Journal of the
Royal Statistical Society B 51(3), 305-361, for intervals that cover at all looks. Their
intervals are a little narrower, as they use how the looks depend on each other.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
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

# Probability that some look's interval misses the true mean.
ERROR = 0.05
INFINITY = math.inf
# Where even so many seeds would not tell, the mean lies at an end of the band.
MANY = 10_000

# One value per seed.
Values = Sequence[float] | np.ndarray
# How `ERROR` is divided: the share of a look with so many seeds, 0 where there is none.
Spending = Callable[[int], float]


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


def planned(looks: Sequence[int]) -> Spending:
    """Returns the share of `ERROR` of each look of a plan: ERROR * seeds / sum(looks).

    A look with more seeds than the plan has is as if it had been planned as the last:
    what it tells holds for seeds that nobody has looked at yet. `looks` is the number
    of seeds at each look, ascending.
    """

    def share(seeds: int) -> float:
        if seeds > looks[-1]:
            return ERROR * seeds / (sum(looks) + seeds)
        return ERROR * seeds / sum(looks) if seeds in looks else 0.0

    return share


def at_every(seeds: int) -> float:
    """Returns the share of `ERROR` where every number of seeds from 2 on is a look.

    ERROR / (seeds * (seeds - 1))
    """
    return ERROR / max(seeds * (seeds - 1), 2)


def at_once(seeds: int) -> float:
    """Returns `ERROR`: there is one look, whatever its number of seeds."""
    return ERROR


def interval(
    values: Values, *, exact: bool = False, error: float = ERROR
) -> tuple[float, float, float, float]:
    """Returns mean, standard deviation, and the confidence interval of the mean.

    mean +- t * std / sqrt(n), where t is the 1 - error / 2 quantile of Student's
    distribution with n - 1 degrees of freedom and std the sample standard deviation
    (divisor n - 1). For a single value the interval is infinite and std is NaN; but
    where values are `exact`, being counted, it is the mean alone.
    """
    mean = float(np.mean(values))
    if exact:
        return mean, 0.0, mean, mean
    if len(values) < 2:
        return mean, math.nan, -INFINITY, INFINITY
    std = float(np.std(values, ddof=1))
    half = float(_half_width(std, len(values), error))
    return mean, std, mean - half, mean + half


def _half_width(std: float, n: Any, error: Any) -> Any:
    return stats.t.ppf(1 - np.asarray(error) / 2, n - 1) * std / np.sqrt(n)


def seeds_needed(
    check: Check, values: Values, *, error: Spending = at_once
) -> int | None:
    """Returns with how many seeds the interval would lie inside or outside the band.

    It is the least number of them that has a look and of which this is so if mean and
    standard deviation stay as they are; None if that takes more than `MANY`, the mean
    being at an end of the band.
    """
    if len(values) < 2:
        return 2
    mean, std, _, _ = interval(values)
    ends = [end for end in (check.low, check.high) if math.isfinite(end)]
    distance = min(abs(mean - end) for end in ends)
    looks = [n for n in range(len(values), MANY + 1) if error(n)]
    half = _half_width(std, np.array(looks), [error(n) for n in looks])
    told = [n for n, wide in zip(looks, half, strict=True) if wide < distance]
    return told[0] if told else None


def judge(
    check: Check,
    values: Values,
    *,
    steps: int,
    dataset: str,
    learned: bool = True,
    error: Spending = at_once,
) -> dict[str, Any]:
    """Returns a check, its measurement and the verdict, ready for JSON.

    The verdict is "holds" if the whole interval lies inside the band (above `low` if
    the band has no upper end), "does not hold" if it lies entirely on one side of the
    band, and otherwise "cannot be told at this n". Other verdicts say why nothing was
    judged: too few steps, another data set (embedded pictures count as another one as
    soon as anything was trained), or `learned=False`. `needs` of what is returned says
    what a judgement would take: {"steps": 100000}, {"dataset": "cifar10"}, or
    {"seeds": 60}, which is None in place of 60 where the mean is at the band's end.

    Args:
        check: what was stated beforehand.
        values: the measurements, one per seed.
        steps: number of training steps; 0 if nothing was trained.
        dataset: name of the data set that was used.
        learned: False if one of the compared networks stayed at chance, because a
            difference from it then says nothing about the claim.
        error: probability that the interval misses the true mean, by the number of
            seeds.
    """
    share = error(len(values))
    _, _, low, high = interval(values, exact=check.exact, error=share)
    above = low >= check.low if math.isfinite(check.high) else low > check.low
    stand_in = steps > 0 and dataset in EMBEDDED
    needs: dict[str, Any] = {}
    if steps < check.steps:
        verdict, needs = TOO_SHORT, {"steps": check.steps}
    elif stand_in or (check.dataset and dataset != check.dataset):
        verdict = OTHER_DATA
        needs = {"dataset": check.dataset} if check.dataset else {}
    elif not learned:
        verdict = UNLEARNED
    elif above and high <= check.high:
        verdict = HOLDS
    elif high < check.low or low > check.high:
        verdict = FAILS
    else:
        verdict = UNTOLD
        needs = {"seeds": seeds_needed(check, values, error=error)}
    known = described(check.what, check.unit, values, exact=check.exact, error=share)
    return {**known, "band": check.band, "verdict": verdict, "needs": needs}


def described(
    what: str, unit: str, values: Values, *, exact: bool = False, error: float = ERROR
) -> dict[str, Any]:
    """Returns a quantity, its values and their `interval`, ready for JSON."""
    mean, std, low, high = interval(values, exact=exact, error=error)
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
