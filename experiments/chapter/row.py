"""A row of the table: a claim, its checks, and how they are measured."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        recorded: names of the recorded runs that decide it, where there are some.
    """

    name: str
    section: str
    claim: str
    what: str
    checks: Sequence[Check]
    measure: Callable[[Lab], Outcome]
    data: str = ""
    recorded: Sequence[str] = ()


def looks(
    row: Row, lab: Lab, known: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Measures a row, and again with more seeds until it is told or the plan ends.

    What is counted or timed is measured once. What is recorded is read again each time,
    as that costs nothing and more may have been recorded.

    Args:
        row: what is measured.
        lab: its budget has the plan.
        known: the row as it was stored before. Its values are judged by the present
            plan, so that only the looks after it are measured.

    Yields:
        the row at each look, in the form that is stored as JSON; nothing if `known` is
        finished as it stands.

    Raises:
        InputError: a data set or a package that the row needs is missing.
        RunError: a training failed.
    """
    plan = lab.budget.seeds
    lab.used.clear()
    recorded = bool(row.recorded and lab.recorded(*row.recorded))
    done = 0
    if known and not recorded and _is_of(row, known):
        if not known["steps"]:
            return
        if known["n"] in plan:
            again = _judged(row, known, _outcome(known), plan)
            if again != known:
                yield again
            if _is_told(again):
                return
            done = known["n"]
    for seeds in plan:
        if seeds <= done:
            continue
        lab.seeds = seeds
        lab.used.clear()
        outcome = row.measure(lab)
        n = max(len(values) for values in outcome.values)
        found = {
            "row": row.name,
            "section": row.section,
            "claim": row.claim,
            "what": row.what,
            "budget": lab.budget.name,
            "dataset": outcome.dataset,
            "steps": outcome.steps,
            "n": n,
            "note": outcome.note,
            "runs": list(lab.used),
            "about": lab.about(),
        }
        if recorded:
            judged = _judged(row, found, outcome, range(2, n + 1), checks.at_every)
            if not known or {**judged, "about": known["about"]} != known:
                yield judged
            return
        judged = _judged(row, found, outcome, plan if outcome.steps else (n,))
        yield judged
        if not outcome.steps or _is_told(judged):
            return


def _judged(
    row: Row,
    found: Mapping[str, Any],
    outcome: Outcome,
    plan: Sequence[int],
    spending: checks.Spending | None = None,
) -> dict[str, Any]:
    """Returns what is stored of a look, with its intervals and verdicts by a plan."""
    spending = spending or checks.planned(plan)
    error = spending(found["n"])
    judged = [
        checks.judge(
            check,
            values,
            steps=outcome.steps,
            dataset=outcome.dataset,
            learned=outcome.learned,
            error=spending,
        )
        for check, values in zip(row.checks, outcome.values, strict=True)
    ]
    also = [
        checks.described(a.what, a.unit, a.values, error=error) for a in outcome.also
    ]
    return {
        **found,
        "looks": list(plan),
        "confidence": 1 - error,
        "checks": judged,
        "also": also,
        "verdict": checks.overall([check["verdict"] for check in judged]),
    }


def _is_of(row: Row, known: Mapping[str, Any]) -> bool:
    """Tells whether a stored row was measured as the row now says."""
    stated = [(check.what, check.band) for check in row.checks]
    stored = [(check["what"], check["band"]) for check in known["checks"]]
    return row.what == known["what"] and stated == stored


def _outcome(known: Mapping[str, Any]) -> Outcome:
    verdicts = [check["verdict"] for check in known["checks"]]
    return Outcome(
        [check["values"] for check in known["checks"]],
        known["dataset"],
        known["steps"],
        [Also(a["what"], a["values"], a["unit"]) for a in known["also"]],
        known["note"],
        checks.UNLEARNED not in verdicts,
    )


def _is_told(judged: Mapping[str, Any]) -> bool:
    return all(check["verdict"] != checks.UNTOLD for check in judged["checks"])
