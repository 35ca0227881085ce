"""Measures the requested rows, and writes the table and the chart of all rows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from chapter import (
    cifar_rows,
    counted_rows,
    data_rows,
    mnist_rows,
    output,
    recorded,
    timed_rows,
)
from chapter.budgets import BUDGETS
from chapter.checks import TOO_SHORT
from chapter.lab import Data, Lab, lasting
from chapter.ledger import Ledger
from chapter.row import Row, looks
from cnnjax.data.load import EMBEDDED
from cnnjax.errors import InputError, MissingPackageError, RunError
from cnnjax.runtime.signals import StopRequestedError
from cnnjax.workdir import files

CHART, README = "claims.png", "README.md"
CHAPTER_S = ("cifar10", "mnist")
TABLE = (mnist_rows, cifar_rows, data_rows, counted_rows, timed_rows)
ROWS: dict[str, Row] = {row.name: row for part in TABLE for row in part.ROWS}


def measure(
    recipes: Mapping[str, ConfigDict],
    data: Mapping[str, Data],
    *,
    budget: str,
    only: Sequence[str],
    out: Path,
    workdir: Path,
    records: Path,
) -> None:
    """Measures rows one after the other, except those that are already finished.

    Args:
        recipes: name of a file in `experiments/configs` -> its configuration.
        data: "cifar" and "mnist" -> where the data set is found.
        budget: name of one of `BUDGETS`.
        only: names of rows; empty means all.
        out: folder of `claims.json` and `claims.png`, and of a `README.md` whose table
            of claims is replaced, if it has one.
        workdir: folder that holds one subfolder per run.
        records: file of the long runs that need not be trained, see `recorded.read`.

    Raises:
        InputError: the budget or a row is unknown, data or a package that a row of
            `only` needs are missing, another process measures into `out`, or `out`
            holds results of other recipes.
        RunError: a training failed; the other rows have been measured.
        StopRequestedError: SIGTERM or Ctrl-C; the same call resumes.
    """
    unknown = [name for name in only if name not in ROWS]
    if budget not in BUDGETS or unknown:
        raise InputError(
            f"got --budget={budget} and --only={','.join(only)}, need one of"
            f" {','.join(BUDGETS)} and some of {','.join(ROWS)}"
        )
    with files.locked(out, "out"):
        ledger = Ledger(out)
        ledger.keep_recipes({name: lasting(recipe) for name, recipe in recipes.items()})
        known = recorded.read(records)
        lab = Lab(recipes, data, BUDGETS[budget], ledger, workdir, known)
        failed, left_out = _measure_all(lab, ledger, list(only or ROWS))
        best = best_rows(ledger.rows.values())
        (out / CHART).write_bytes(output.chart(best))
        written = [str(path) for path in (ledger.path, out / CHART) if path.exists()]
        if output.write_readme(best, out / README):
            written.append(str(out / README))
    print(f"wrote {', '.join(written)}")
    if failed:
        raise RunError("; ".join(failed))
    if only and left_out:  # only rows that were not asked for by name may be left out
        raise InputError("; ".join(left_out))


def _measure_all(
    lab: Lab, ledger: Ledger, names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Measures and prints rows; returns messages about the failed and left-out ones."""
    keys, failed, left_out = {}, [], []
    for name in names:
        row = ROWS[name]
        on = [lab.name_of(row.data)] if row.data else []
        key = keys[name] = ", ".join([name, lab.budget.name, *on])
        stated = "; ".join(
            f"{check.what} {output.band(check.band, check.unit)}"
            for check in row.checks
        )
        print(f"\n==== {name}: {row.claim}\nstated: {stated}", flush=True)
        found = None
        try:
            for found in looks(row, lab, ledger.rows.get(key)):
                ledger.put_row(key, found)
                verdicts = [output.verdict(check, found) for check in found["checks"]]
                print(f"{name}: {'; '.join(verdicts)}", flush=True)
        except MissingPackageError as error:  # the other rows do not need it
            left_out.append(f"{name} is left out: {error}")
        except StopRequestedError:
            raise
        except RunError as error:  # the other rows are independent of it
            failed.append(f"{name} failed: {error}")
        else:
            if found is None:
                print(f"{name} is finished")
    output.print_table(
        [ledger.rows[key] for key in keys.values() if key in ledger.rows]
    )
    if left_out:
        print("\n".join(left_out))
    return failed, left_out


def best_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the best row of each claim, in the order of the table.

    A row with enough steps is preferred, then one on the chapter's own data set, then
    one on a data set that is not embedded, then the one with the largest budget.
    """
    order = list(BUDGETS)

    def rank(row: dict[str, Any]) -> tuple[bool, int, int]:
        enough = row["verdict"] != TOO_SHORT
        trueness = (row["dataset"] in ("", *CHAPTER_S)) - (row["dataset"] in EMBEDDED)
        return enough, trueness, order.index(row["budget"])

    chosen = {row["row"]: row for row in sorted(rows, key=rank)}
    return [chosen[name] for name in ROWS if name in chosen]
