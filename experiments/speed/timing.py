"""Times of several things in alternation, so that a noisy machine is fair to all."""

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# Training goes on and on; after a pause or another library's work, the first steps find
# cold caches and sleeping cores.
MIN_WINDOW_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        name: unique among the cases that are timed together.
        run: does the work once, and returns when it is done.
        images: that one run treats, or 0.
        flops: arithmetic operations of one run, by formula, or 0.
        bytes: that one run must move through memory, or 0.
    """

    name: str
    run: Callable[[], Any]
    images: int = 0
    flops: float = 0.0
    bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Times:
    """What was measured of a case.

    Attributes:
        case: what was timed.
        first: seconds of its first run, which compiles it.
        seconds: a run, float64 [rounds].
    """

    case: Case
    first: float
    seconds: np.ndarray

    @property
    def per_image(self) -> np.ndarray:
        """Seconds an image, or a run where it treats none; float64 [rounds]."""
        return self.seconds / max(self.case.images, 1)


def alternate(
    cases: Sequence[Case], rounds: int, *, pause: float = 0.0
) -> dict[str, Times]:
    """Times every case once a round, forwards and backwards in turn.

    Each case runs twice before, which compiles it and warms the caches. A window holds
    as many runs of a case as take `MIN_WINDOW_SECONDS`.

    Args:
        cases: what to time.
        rounds: at least 1.
        pause: seconds before each window; threads of other libraries go on waiting for
            work for a while after theirs.

    Returns:
        name -> times.
    """
    first = {case.name: _seconds(case.run, 1) for case in cases}
    repeats = {
        case.name: math.ceil(MIN_WINDOW_SECONDS / max(_seconds(case.run, 1), 1e-9))
        for case in cases
    }
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            for case in cases if i % 2 == 0 else reversed(cases):
                time.sleep(pause)
                taken = _seconds(case.run, repeats[case.name])
                seconds[case.name].append(taken / repeats[case.name])
    finally:
        gc.enable()
    return {
        case.name: Times(case, first[case.name], np.array(seconds[case.name]))
        for case in cases
    }


def _seconds(run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def row(times: Times, peak: Times | None = None) -> dict[str, Any]:
    """Returns what is reported of a case, as JSON.

    Args:
        times: of the case.
        peak: of the matrix product in the same rounds, if it was timed.

    Returns:
        `milliseconds` a run: `median`, `min`, `max`; `rounds`; `first_seconds`; and
        where they make sense `images_per_second`, `gflops_per_second` and
        `gbytes_per_second`, of the median, and `share_of_peak`, round by round.
    """
    case, seconds = times.case, times.seconds
    median = float(np.median(seconds))
    values: dict[str, Any] = {
        "milliseconds": {
            "median": 1e3 * median,
            "min": 1e3 * float(seconds.min()),
            "max": 1e3 * float(seconds.max()),
        },
        "rounds": len(seconds),
        "first_seconds": times.first,
    }
    if case.images:
        values["images_per_second"] = case.images / median
    if case.flops:
        values["gflops_per_second"] = case.flops / median / 1e9
    if case.flops and peak is not None:
        rates = (case.flops / seconds) / (peak.case.flops / peak.seconds)
        values["share_of_peak"] = float(np.median(rates))
    if case.bytes:
        values["gbytes_per_second"] = case.bytes / median / 1e9
    return values


def compare(
    timed: Mapping[str, Times], pairs: Sequence[tuple[str, str]]
) -> dict[str, float]:
    """Returns "ours / theirs" -> how many times as fast ours is, an image or a run.

    The median over the rounds of the ratio in each.

    Args:
        timed: from `alternate`.
        pairs: (ours, theirs), names of cases; those that were not timed are left out.
    """
    return {
        f"{ours} / {theirs}": float(
            np.median(timed[theirs].per_image / timed[ours].per_image)
        )
        for ours, theirs in pairs
        if ours in timed and theirs in timed
    }
