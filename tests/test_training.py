"""The calls that the loop makes of a run, and what it says where it cannot go on."""

import math

import pytest

from cnnjax.errors import RunError
from cnnjax.training import calls, check_finite, is_due


@pytest.mark.parametrize("split_at_logs", [False, True])
@pytest.mark.parametrize("first", [0, 3, 10, 29])
def test_calls_end_where_something_is_due(first: int, split_at_logs: bool) -> None:
    every = [12, 7, *([5] if split_at_logs else [])]
    made = list(calls(first, 30, 10, every))
    assert [step for steps in made for step in steps] == list(range(first, 30))
    ends = {steps.stop for steps in made}
    due = {7, 14, 21, 28, 12, 24, 10, 20, 30}
    due |= {5, 15, 25} if split_at_logs else set()
    assert ends == {end for end in due if end > first}


def test_what_is_never_due_ends_no_call() -> None:
    assert list(calls(0, 10, 4, [0, 0])) == [range(4), range(4, 8), range(8, 10)]
    assert list(calls(10, 10, 4, [3])) == []
    assert not is_due(12, 0) and is_due(12, 6) and not is_due(13, 6)


@pytest.mark.parametrize(
    ("step", "saved", "message"),
    [
        (0, [], "nan for seed 0 at step 0; no checkpoint has been saved yet: no upd"),
        (3, [], "at step 3; no checkpoint has been saved yet: lower optim.learning_ra"),
        (9, [2, 8], r"at step 9; .* is kept, of step 8: lower .* in another --workdir"),
    ],
)
def test_what_is_not_finite_says_what_is_saved(step, saved, message: str) -> None:
    metrics = {"cross_entropy": [1.0], "l2": [0.0], "grad_norm": [2.0]}
    check_finite(metrics, step, 0, saved)
    with pytest.raises(RunError, match=message):
        check_finite(metrics | {"l2": [math.nan]}, step, 0, saved)
