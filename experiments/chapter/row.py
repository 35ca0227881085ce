"""A row of the table: a claim, its checks, and how they are measured."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from chapter import checks
from chapter.checks import Check, Values
from chapter.lab import Lab


@dataclasses.dataclass(frozen=True)
class Also:
    """A quantity that is shown beside a claim but not judged.

    Attributes:
        what: the quantity, in words.
        values: one per seed.
        unit: as in `Check`.
    """

    what: str
    values: Values
    unit: str = "%"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The measurements of a row.

    Attributes:
        values: for each check of the row, in order, one value per seed or round.
        dataset: name of the data set that was used; "" if none was.
        steps: number of training steps; 0 if nothing was trained.
        also: further quantities to show.
        note: a remark for the reader of the table.
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
        section: section of the chapter, such as "5.3".
        claim: the chapter's statement, in short.
        what: what is run to test it.
        checks: the quantities that decide the claim, with bands stated beforehand.
        measure: runs it; returns the values of `checks`.
        data: data set that it needs, "cifar" or "mnist"; "" for none.
    """

    name: str
    section: str
    claim: str
    what: str
    checks: Sequence[Check]
    measure: Callable[[Lab], Outcome]
    data: str = ""


def measured(row: Row, lab: Lab) -> dict[str, Any]:
    """Measures a row and returns it in the form that is stored as JSON.

    Raises:
        InputError: a data set or a package that the row needs is missing.
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
        "also": [checks.described(a.what, a.unit, a.values) for a in outcome.also],
        "note": outcome.note,
        "verdict": checks.overall([check["verdict"] for check in judged]),
        "runs": list(lab.used),
        "about": lab.about(),
    }
