"""Measures the rows that were asked for, and writes what is known of all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax.claims import output
from cnnjax.claims.budgets import BUDGETS
from cnnjax.claims.lab import Data, Lab
from cnnjax.claims.ledger import Ledger
from cnnjax.claims.row import measured
from cnnjax.claims.table import ROWS
from cnnjax.errors import InputError, MissingPackageError

CHART = "claims.png"


def measure(
    recipes: Mapping[str, ConfigDict],
    data: Mapping[str, Data],
    *,
    budget: str,
    only: Sequence[str],
    out: Path,
    workdir: Path,
    readme: Path,
) -> None:
    """Measures rows one after the other; one that is finished is not measured again.

    Args:
        recipes: name of a file of `experiments/configs` -> configuration.
        data: "cifar" and "mnist" -> where the pictures are.
        budget: one of `BUDGETS`.
        only: names of rows; none for all.
        out: folder of `claims.json` and `claims.png`.
        workdir: folder of the runs.
        readme: gets the table, where it has the marks for one.

    Raises:
        InputError: there is no such budget or row, or the data are missing.
        RunError: a training failed.
        StopRequestedError: SIGTERM or Ctrl-C; the same call goes on.
    """
    unknown = [name for name in only if name not in ROWS]
    if budget not in BUDGETS or unknown:
        raise InputError(
            f"got --budget={budget} and --only={','.join(only)}, need one of"
            f" {','.join(BUDGETS)} and some of {','.join(ROWS)}"
        )
    ledger = Ledger(out)
    lab = Lab(recipes, data, BUDGETS[budget], ledger, workdir)
    names = list(only or ROWS)
    keys, left_out = {}, []
    for name in names:
        row = ROWS[name]
        on = [lab.name_of(row.data)] if row.data else []
        key = keys[name] = ", ".join([name, budget, *on])
        if key in ledger.rows:
            print(f"{name} is finished")
            continue
        stated = "; ".join(f"{check.what} {_stated(check)}" for check in row.checks)
        print(f"\n==== {name}: {row.claim}\nstated: {stated}", flush=True)
        try:
            ledger.put_row(key, measured(row, lab))
        except MissingPackageError as error:  # the other rows do without
            left_out.append(f"{name} is left out: {error}")
        else:
            print(f"{name}: {ledger.rows[key]['verdict']}", flush=True)
    output.print_table(
        [ledger.rows[key] for key in keys.values() if key in ledger.rows]
    )
    best = _best(ledger.rows.values())
    (out / CHART).write_bytes(output.chart(best))
    written = [str(ledger.path), str(out / CHART)]
    if output.write_readme(best, readme):
        written.append(str(readme))
    print("\n".join([*left_out, f"wrote {', '.join(written)}"]))


def _stated(check: Any) -> str:
    return output.band(
        {
            "band": [check.low, None if check.high > 1e300 else check.high],
            "unit": check.unit,
        }
    )


def _best(rows: Any) -> list[dict[str, Any]]:
    """Returns each claim's row of the largest budget, in the order of the table."""
    order = list(BUDGETS)
    chosen: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: order.index(row["budget"])):
        chosen[row["row"]] = row
    return [chosen[name] for name in ROWS if name in chosen]
