"""Times cases in alternation, so that noise of the machine affects all alike."""

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# A measurement lasts at least this long: after a pause or another library's work, the
# first steps find cold caches and sleeping cores, unlike those of a long training.
MIN_WINDOW_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        name: unique among the cases that are timed together.
        run: does the work once and returns when it is done.
        images: number of images that one run processes, or 0.
        steps: number of training steps of one run, or 0.
        flops: arithmetic operations of one run according to a formula, or 0.
        bytes: number of bytes that one run moves to or from memory, or 0.
    """

    name: str
    run: Callable[[], Any]
    images: int = 0
    steps: int = 0
    flops: float = 0.0
    bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class Times:
    """The measured times of a case.

    Attributes:
        case: what was timed.
        first: seconds of its first run, which includes compilation.
        seconds: seconds per run in each round, float64 [rounds].
    """

    case: Case
    first: float
    seconds: np.ndarray

    @property
    def per_image(self) -> np.ndarray:
        """Seconds per image, or per run if the case has no images; float64 [rounds]."""
        return self.seconds / max(self.case.images, 1)


def alternate(
    cases: Sequence[Case], rounds: int, *, pause: float = 0.0
) -> dict[str, Times]:
    """Times every case once per round; every other round goes in reverse order.

    Each case first runs twice, which compiles it and warms the caches. Then it is
    repeated for about `MIN_WINDOW_SECONDS` in every round.

    Args:
        cases: what to time.
        rounds: at least 1.
        pause: seconds to sleep before each measurement, because threads of other
            libraries busy-wait for a while after their work.

    Returns:
        name of the case -> its times.
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
    """Returns the entry of a case in `benchmark.json`.

    Args:
        times: what was measured of the case.
        peak: times of the matrix product in the same rounds, if it was timed.

    Returns:
        `milliseconds` per run (`median`, `min`, `max`), `rounds`, `first_seconds` and,
        if the case has images, steps, operations or bytes: `images_per_second`,
        `milliseconds_per_step`, `gflops_per_second` and `gbytes_per_second` at the
        median time, and `share_of_peak`, the median over the rounds of speed relative
        to `peak`.
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
    if case.steps:
        values["milliseconds_per_step"] = 1e3 * median / case.steps
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
    """Returns "ours / theirs" -> how many times as fast ours is.

    That is the median over the rounds of their time per image (or run) over ours.

    Args:
        timed: what `alternate` returned.
        pairs: names of cases (ours, theirs); a pair that was not timed is left out.
    """
    return {
        f"{ours} / {theirs}": float(
            np.median(timed[theirs].per_image / timed[ours].per_image)
        )
        for ours, theirs in pairs
        if ours in timed and theirs in timed
    }
