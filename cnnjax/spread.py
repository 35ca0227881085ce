"""Figures of many seeds: one of each, their mean and their standard deviation."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# What stands behind the key of a figure of many seeds.
SUFFIXES = ("/mean", "/std")


def with_spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures, with `<key>/mean` and `<key>/std` behind each list.

    mean = sum(x) / n,  std = sqrt(sum((x - mean)**2) / (n - 1))

    Args:
        values: figures by key; those of many seeds are lists of two or more.

    Returns:
        Figures that are no lists as they are: without any, `values`.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[key] = value
        if isinstance(value, list):
            # What is not finite has no mean, and says so by itself.
            with np.errstate(invalid="ignore"):
                found[f"{key}/mean"] = float(np.mean(value))
                found[f"{key}/std"] = float(np.std(value, ddof=1))
    return found


def mean(values: Mapping[str, Any], key: str) -> float:
    """Returns the figure, or its mean over the seeds where `with_spread` gave one."""
    return values.get(f"{key}/mean", values[key])


def of_seed(values: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Returns the figures of the k-th seed: of each list that one, and what is none."""
    return {
        key: value[k] if isinstance(value, list) else value
        for key, value in values.items()
    }


def not_finite(value: float | list[float], seed: int) -> str:
    """Returns the first value that is not finite, with its seed; "" if all are.

    Args:
        value: of one seed, or a list of those of `seed`, `seed + 1` and so on.
        seed: of the run.
    """
    bad = ~np.isfinite(value)
    if not bad.any():
        return ""
    if not isinstance(value, list):
        return str(value)
    k = int(np.argmax(bad))
    return f"{value[k]} for seed {seed + k}"
