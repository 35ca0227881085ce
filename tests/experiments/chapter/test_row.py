"""Looks at a row with more and more seeds, and what is not measured again."""

import dataclasses
import json

import pytest

from chapter import checks
from chapter.budgets import BUDGETS
from chapter.checks import FAILS, HOLDS, TOO_SHORT, UNTOLD, contrast
from chapter.row import Also, Outcome, Row, looks

# Values of the difference, seed by seed; the first few, or all, are measured.
CLEAR = [0.010, 0.011, 0.012, 0.011]
UNCLEAR = [0.01, -0.01, 0.02, -0.02]
LATER = [0.020, 0.021, 0.022, 0.021, 0.020, 0.021, 0.022, 0.021]


class Bench:
    """A lab that trains nothing."""

    budget = BUDGETS["standard"]

    def __init__(self, *recorded: str) -> None:
        self.used: list[str] = []
        self.seeds, self.of, self.asked = 0, recorded, []

    def recorded(self, *names: str) -> list[object]:
        return [object()] * len(names) if set(names) <= set(self.of) else []

    def about(self) -> dict:
        return {}


def row(values: list[float], **outcome: object) -> Row:
    """A row that has a value for each seed, and writes down what it was asked for."""

    def measure(lab: Bench) -> Outcome:
        lab.asked.append(lab.seeds)
        lab.used.append(f"seeds 0 to {lab.seeds - 1}")
        shown = [Also("beside it", values[: lab.seeds])]
        told = {"dataset": "cifar10", "steps": 3000, "also": shown, **outcome}
        return Outcome([values[: lab.seeds]], **told)

    claim = contrast("with - without", steps=3000)
    return Row("lrn", "5.3", "LRN helps", "base.py", (claim,), measure, "cifar")


@pytest.mark.parametrize(
    ("values", "asked", "verdict"),
    [
        (CLEAR, [4], HOLDS),
        ([-value for value in CLEAR], [4], FAILS),
        ([0.0, 0.01, *LATER], [4, 8], HOLDS),
        (UNCLEAR * 4, [4, 8, 16], UNTOLD),
        ([*UNCLEAR, *LATER, *UNCLEAR], [4, 8, 16], HOLDS),
    ],
)
def test_seeds_are_added_until_it_is_told(values, asked, verdict) -> None:
    bench = Bench()
    found = list(looks(row(values), bench))
    assert bench.asked == [look["n"] for look in found] == asked
    assert found[-1]["verdict"] == verdict
    assert all(look["verdict"] == UNTOLD for look in found[:-1])


def test_each_look_has_its_share_of_the_error() -> None:
    values = UNCLEAR * 4
    for look, seeds in zip(looks(row(values), Bench()), (4, 8, 16), strict=True):
        error = 0.05 * seeds / 28
        assert (look["n"], look["looks"]) == (seeds, [4, 8, 16])
        assert look["confidence"] == pytest.approx(1 - error)
        _, _, *ends = checks.interval(values[:seeds], error=error)
        assert look["checks"][0]["interval"] == ends == look["also"][0]["interval"]
        assert look["checks"][0]["needs"] == {"seeds": None}  # the mean is 0
        assert look["runs"] == [f"seeds 0 to {seeds - 1}"]


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        ({"steps": 2999}, TOO_SHORT),
        ({"dataset": "shapes"}, checks.OTHER_DATA),
        ({"learned": False}, checks.UNLEARNED),
        ({"steps": 0}, UNTOLD),  # timed: more seeds are not what it lacks
    ],
)
def test_where_more_seeds_tell_nothing_it_is_measured_once(outcome, verdict) -> None:
    claim = contrast("with - without", steps=3000 if outcome.get("steps", 1) else 0)
    asked = dataclasses.replace(row(UNCLEAR * 4, **outcome), checks=(claim,))
    bench = Bench()
    [found] = looks(asked, bench)
    assert bench.asked == [4] and found["verdict"] == verdict
    if verdict == UNTOLD:
        assert (found["looks"], found["confidence"]) == ([4], 0.95)


def test_recorded_runs_are_always_read_again_and_each_number_is_a_look() -> None:
    asked = dataclasses.replace(row(UNCLEAR), recorded=("long",))
    for bench, looked in ((Bench("long"), 1), (Bench(), 3)):
        known = list(looks(asked, bench))
        assert len(known) == looked
    once = Bench("long")
    [first] = looks(asked, once)
    assert first["looks"] == [2, 3, 4]
    assert first["confidence"] == pytest.approx(1 - 0.05 / 12)
    assert list(looks(asked, once, stored(first))) == []
    assert once.asked == [4, 4]
    more = dataclasses.replace(row(CLEAR), recorded=("long",))
    [again] = looks(more, once, stored(first))
    assert again["verdict"] == HOLDS


def stored(look: dict) -> dict:
    return json.loads(json.dumps(look))


def test_a_row_goes_on_after_the_last_look_that_was_stored() -> None:
    values = UNCLEAR * 2 + LATER
    bench = Bench()
    straight = list(looks(row(values), bench))
    for at in range(3):
        later = Bench()
        rest = list(looks(row(values), later, stored(straight[at])))
        assert later.asked == bench.asked[at + 1 :]
        assert rest == straight[at + 1 :]


def test_a_row_of_version_0_1_0_is_judged_by_the_plan() -> None:
    def old(values: list[float]) -> dict:
        [look, *_] = looks(row(values), Bench())
        judged = checks.judge(
            contrast("with - without", steps=3000),
            values,
            steps=3000,
            dataset="cifar10",
        )
        del judged["needs"], look["looks"], look["confidence"]
        return stored({**look, "checks": [judged], "verdict": judged["verdict"]})

    # 4 seeds tell it by the plan too: nothing is measured.
    bench, known = Bench(), old(CLEAR)
    [again] = looks(row(CLEAR), bench, known)
    assert bench.asked == [] and again["verdict"] == HOLDS
    [fresh] = looks(row(CLEAR), Bench())
    assert again == stored(fresh)
    assert list(looks(row(CLEAR), bench, again)) == []
    # An interval of 95% told it, and the wider one of the first look does not.
    values = [0.004, 0.012, 0.011, 0.013]
    bench, known = Bench(), old(values)
    assert known["verdict"] == HOLDS
    at_first, after = looks(row(values + CLEAR), bench, known)
    assert at_first["verdict"] == UNTOLD and bench.asked == [8]
    assert (after["n"], after["verdict"]) == (8, HOLDS)
    # What was stated otherwise, or run otherwise, is measured from the start.
    for changed in (
        {**known, "what": "base.py in other steps"},
        {**known, "checks": [{**known["checks"][0], "band": [0.1, None]}]},
    ):
        bench = Bench()
        next(looks(row(CLEAR), bench, changed))
        assert bench.asked == [4]
