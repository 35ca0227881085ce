"""The calls that the loop makes of a run."""

import pytest

from cnnjax.training import calls, is_due


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
