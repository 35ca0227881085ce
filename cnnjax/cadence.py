"""How long a run is, how often it speaks, and the calls that this makes of it."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How long a run is and how often it speaks, in steps; 0 is never."""

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int


def calls(
    first: int, cadence: Cadence, steps_per_call: int, *, split_at_logs: bool
) -> Iterator[range]:
    """Yields the steps of each call, from `first` to the end of the run.

    A call ends where something is due: an evaluation, a checkpoint, a line that takes
    the parameters as they were before its step. It also ends at the multiples of
    `steps_per_call`, so that a resumed run makes the same calls.
    """
    periods = [steps_per_call, cadence.eval_every, cadence.checkpoint_every]
    if split_at_logs:
        periods.append(cadence.log_every)
    while first < cadence.steps:
        ends = [(first // every + 1) * every for every in periods if every]
        end = min(cadence.steps, *ends)
        yield range(first, end)
        first = end


def is_due(done: int, every: int) -> bool:
    """Returns whether `done` steps are a multiple of `every`; 0 is never."""
    return every > 0 and done % every == 0
