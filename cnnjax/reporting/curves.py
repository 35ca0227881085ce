"""Reads `metrics.jsonl` and makes curves of it, of one run or averaged over seeds."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Curve:
    """A quantity at several steps.

    Attributes:
        steps: int [n], ascending.
        values: float [n].
        deviation: standard deviation over seeds, float [n]; None for one seed.
    """

    steps: np.ndarray
    values: np.ndarray
    deviation: np.ndarray | None


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the valid lines of `metrics.jsonl`, and the number of invalid ones.

    A line may be cut short if the run was killed or is still writing. A file that does
    not exist has no lines.
    """
    records: list[dict[str, Any]] = []
    torn = 0
    if not path.exists():
        return records, torn
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
        else:
            torn += 1
    return records, torn


def mean_and_deviation(
    values: Mapping[str, Any], key: str
) -> tuple[float, float | None] | None:
    """Returns a figure's mean over the seeds of a run and its standard deviation.

    Args:
        values: a line of `metrics.jsonl`, or the final metrics.
        key: key of the figure. If the run has several seeds, its value is a list, and
            the mean and deviation are those of `<key>/mean` and `<key>/std`.

    Returns:
        (value, None) if there is one seed; None if there is no such number.
    """
    value, deviation = values.get(key), None
    if f"{key}/mean" in values:
        value, deviation = values[f"{key}/mean"], values.get(f"{key}/std")
    if not isinstance(value, int | float):
        return None
    return float(value), deviation if isinstance(deviation, int | float) else None


def curve(records: Iterable[Mapping[str, Any]], key: str) -> Curve | None:
    """Returns the curve of a figure such as `train/loss`, or None if no line has it."""
    found = {}
    for record in records:
        value = mean_and_deviation(record, key)
        if value is not None:
            found[record["step"]] = value
    if not found:
        return None
    steps = sorted(found)
    deviations = [found[step][1] for step in steps]
    return Curve(
        steps=np.array(steps),
        values=np.array([found[step][0] for step in steps]),
        deviation=None
        if None in deviations
        else np.array([deviation for deviation in deviations if deviation is not None]),
    )


def over_seeds(curves: Sequence[Curve]) -> Curve:
    """Returns the mean and sample standard deviation of at least one curve.

    The curves are of runs that differ in their seed. Only steps that all of them have
    are kept. A single curve is returned unchanged.
    """
    if len(curves) == 1:
        return curves[0]
    steps = curves[0].steps
    for other in curves[1:]:
        steps = np.intersect1d(steps, other.steps)
    values = np.stack([c.values[np.isin(c.steps, steps)] for c in curves])
    return Curve(steps, values.mean(axis=0), values.std(axis=0, ddof=1))


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Returns the running mean of `values` [n] over a centred window of odd `width`.

    At the end the window keeps its width and stops: the last values are all the mean of
    the last `width`, or the noise of one batch would look like a trend. At the start,
    where a loss falls steeply, the window becomes smaller, down to one value.
    """
    places, half = np.arange(len(values)), min(width // 2, (len(values) - 1) // 2)
    centres = np.minimum(places, len(values) - 1 - half)
    halves = np.minimum(half, centres)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[centres + halves + 1] - total[centres - halves]) / (2 * halves + 1)
