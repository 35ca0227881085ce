"""A row of the table: a claim, what it comes to, and how that is measured."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from chapter import checks
from chapter.checks import Check, Values
from chapter.lab import Lab


@dataclasses.dataclass(frozen=True)
class Also:
    """A quantity that is shown beside a claim and not judged.

    Attributes:
        what: the quantity, in words.
        values: one a seed.
        unit: as of `Check`.
    """

    what: str
    values: Values
    unit: str = "%"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a row has measured.

    Attributes:
        values: of each check of the row, in their order: one a seed.
        dataset: that it was measured on; "" where there is none.
        steps: of the trainings; 0 where there are none.
        also: what else there is to see.
        note: in words, what a reader must know besides.
        learned: see `checks.judge`.
    """

    values: Sequence[Values]
    dataset: str = ""
    steps: int = 0
    also: Sequence[Also] = ()
    note: str = ""
    learned: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """A claim of the chapter, and how it is tested.

    Attributes:
        name: as on the command line.
        section: of the chapter.
        claim: in short, the chapter's words.
        what: what is run.
        checks: what the claim comes to; said before anything is run.
        measure: runs it.
        data: the pictures that it takes, "cifar" or "mnist"; "" for none.
    """

    name: str
    section: str
    claim: str
    what: str
    checks: Sequence[Check]
    measure: Callable[[Lab], Outcome]
    data: str = ""


def measured(row: Row, lab: Lab) -> dict[str, Any]:
    """Measures a row, and returns it as JSON.

    Raises:
        InputError: the data, or a package that the row needs, are missing.
        RunError: a training failed.
    """
    lab.used.clear()
    outcome = row.measure(lab)
    judged = [
        checks.judge(
            check,
            values,
            steps=outcome.steps,
            dataset=outcome.dataset,
            learned=outcome.learned,
        )
        for check, values in zip(row.checks, outcome.values, strict=True)
    ]
    return {
        "row": row.name,
        "section": row.section,
        "claim": row.claim,
        "what": row.what,
        "budget": lab.budget.name,
        "dataset": outcome.dataset,
        "steps": outcome.steps,
        "n": max(len(values) for values in outcome.values),
        "checks": judged,
        "also": [_shown(also) for also in outcome.also],
        "note": outcome.note,
        "verdict": checks.overall([check["verdict"] for check in judged]),
        "runs": list(lab.used),
        "about": lab.about(),
    }


def _shown(also: Also) -> dict[str, Any]:
    mean, std, low, high = checks.interval(also.values)
    one = len(also.values) == 1
    return {
        "what": also.what,
        "unit": also.unit,
        "values": [float(value) for value in also.values],
        "mean": mean,
        "std": None if one else std,
        "interval": [None, None] if one else [low, high],
    }
