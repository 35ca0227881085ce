"""Which step scored highest, and the keeping of it beside the newest ones."""

import math
from collections.abc import Sequence
from typing import Any

KEEP_LATEST = 2


class Best:
    """The step of the highest score so far; to Orbax, its policy of what is kept.

    Not Orbax's own best: that deletes the newest step where it is not among the best,
    and a NaN takes the place of the best one.

    Attributes:
        record: {"step": step, "score": score}, of the earliest where several are
            equal; None where there is none.
    """

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None

    def is_beaten_by(self, score: float | None) -> bool:
        """Returns whether a score is higher; NaN, infinities and None never are."""
        if score is None or not math.isfinite(score):
            return False
        return self.record is None or score > self.record["score"]

    def offer(self, step: int, score: float | None) -> None:
        """Takes note of a step, if it is better."""
        if self.is_beaten_by(score):
            self.record = {"step": step, "score": score}

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        """Returns for each step, of which the newest are last, whether it is kept."""
        best = None if self.record is None else self.record["step"]
        latest = [info.step for info in checkpoints[-KEEP_LATEST:]]
        return [info.step in latest or info.step == best for info in checkpoints]
