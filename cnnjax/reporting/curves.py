"""What `metrics.jsonl` says of a run, as curves; several runs as one with a band."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Curve:
    """A quantity over the steps.

    Attributes:
        steps: int [n], ascending.
        values: float [n].
        deviation: standard deviation over seeds, float [n]; None for one seed.
    """

    steps: np.ndarray
    values: np.ndarray
    deviation: np.ndarray | None


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the lines of `metrics.jsonl`, and how many are no such line.

    A kill, or a run that is still writing, may leave a line that is cut short.

    Args:
        path: a file; one that does not exist has no lines.
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
    """Returns a figure and its deviation over the seeds of a run.

    Args:
        values: a line of `metrics.jsonl`, or the final metrics.
        key: of the figure; where a run has several seeds it is a list, with
            `<key>/mean` and `<key>/std` beside it.

    Returns:
        (value, None) of one seed; None where there is no such number.
    """
    value, deviation = values.get(key), None
    if f"{key}/mean" in values:
        value, deviation = values[f"{key}/mean"], values.get(f"{key}/std")
    if not isinstance(value, int | float):
        return None
    return float(value), deviation if isinstance(deviation, int | float) else None


def curve(records: Iterable[Mapping[str, Any]], key: str) -> Curve | None:
    """Returns how `key` went, or None where no line has it.

    Args:
        records: from `read_metrics`.
        key: such as `train/loss`.
    """
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
    """Returns the mean of runs that differ in their seed, and its deviation.

    Only the steps that all of them have count. The deviation is that of a sample
    (divided by n - 1).

    Args:
        curves: at least one; a single one is returned as it is.
    """
    if len(curves) == 1:
        return curves[0]
    steps = curves[0].steps
    for other in curves[1:]:
        steps = np.intersect1d(steps, other.steps)
    values = np.stack([c.values[np.isin(c.steps, steps)] for c in curves])
    return Curve(steps, values.mean(axis=0), values.std(axis=0, ddof=1))


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Returns the running mean over `width` values, fewer towards both ends.

    The window stays centred, so that the first and last values are their own mean.

    Args:
        values: float [n].
        width: odd.
    """
    places = np.arange(len(values))
    half = np.minimum(width // 2, np.minimum(places, places[::-1]))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[places + half + 1] - total[places - half]) / (2 * half + 1)
