"""Writes numbers as a reader wants them: percent, thousands, durations, intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax.reporting.curves import mean_and_deviation

MISSING = "\N{EM DASH}"

# Two-sided 95% quantile of the normal distribution.
Z = 1.959964

SPLITS = {"test": "test", "val": "validation", "best": "best checkpoint's"}
_WORDS = {
    "num_params": "parameters",
    "eval_accuracy": "accuracy in validation",
    "dataset": "data set",
    "examples_per_sec": "images per second",
    "train_seconds": "training time",
    "compile_seconds": "compilation time",
    "ema": "averaged weights",
}


def wilson(correct: Any, count: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns both ends of the 95% intervals of fractions `correct / count`.

    Both are numbers or arrays; an interval of no observations is from 0 to 1.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical
    Inference, Journal of the American Statistical Association 22, 1927.
    """
    n = np.asarray(count, np.float64)
    fraction = correct / np.maximum(n, 1)
    middle = (n * fraction + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * np.sqrt(n * fraction * (1 - fraction) + Z**2 / 4)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def interval(correct: float, count: float) -> str:
    """Returns the 95% interval of a fraction, such as "71.64% to 73.39%"."""
    low, high = wilson(correct, count)
    return f"{low:.2%} to {high:.2%}"


def duration(seconds: float) -> str:
    """Returns a time in at most two units: "0.82 s", "1 min 38 s", "2 h 7 min"."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    large, size, small = ("min", 60, "s") if seconds < 3570 else ("h", 3600, "min")
    number, rest = divmod(round(seconds / size * 60), 60)
    return f"{number:,} {large} {rest} {small}"


def plain(value: float) -> str:
    """Returns a number with thousands separated: "1,068,298", "0.7972"."""
    whole = isinstance(value, int) or abs(value) >= 1000
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def label(key: str) -> str:
    """Returns the words for a key of `final_metrics.json`."""
    prefix, _, name = key.rpartition("/")
    split, *how = prefix.split("_")
    named = f"{SPLITS.get(split, '')} {_WORDS.get(name, name)}".strip()
    return ", ".join([named, *(_WORDS.get(word, word) for word in how)])


def result(final: Mapping[str, Any], key: str) -> str:
    """Returns a figure of the final metrics in its unit, with what is known of it.

    One accuracy has its 95% interval; of several seeds a figure is the mean and the
    standard deviation.
    """
    found = mean_and_deviation(final, key)
    if found is None:
        return str(final.get(key, MISSING))
    value, deviation = found
    if key.endswith("accuracy"):
        if deviation is not None:
            return f"{value:.2%} \N{PLUS-MINUS SIGN} {100 * deviation:.2f}"
        prefix = key.rpartition("/")[0]
        correct, count = (
            final.get(f"{prefix}/{name}") for name in ("correct", "count")
        )
        if isinstance(correct, int) and isinstance(count, int):
            return f"{value:.2%} ({interval(correct, count)})"
        return f"{value:.2%}"
    if deviation is not None:
        return f"{plain(value)} \N{PLUS-MINUS SIGN} {deviation:.2g}"
    if key.endswith("_seconds"):
        return duration(value)
    return plain(final.get(key, value))
