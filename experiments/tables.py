"""Writes the tables of the READMEs from the JSON files of experiments/results.

python experiments/tables.py

--add=RUNS        first records finished runs, separated by commas, in runs.json: their
                  folders, or files that cifar10_tensorflow.py wrote
--row=NAME        the row of the tables that they belong to, such as base
--root=DIR        the repository whose files are read and written [this one]

A table stands in a README between the lines <!-- table: NAME --> and <!-- end -->, and
is replaced there. A row without runs is left out.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cnnjax import cli
from cnnjax.errors import InputError
from cnnjax.workdir import files
from tabulation import markdown, recording

RESULTS = Path("experiments") / "results"
READMES = (Path("README.md"), RESULTS / "README.md")
# Columns of the table of speeds -> what benchmark.py wrote there.
SPEEDS = {
    "Zen 5, jax 0.10": "benchmark_jax0.10.json",
    "Zen 5, jax 0.12": "benchmark_jax0.12.json",
    "Xeon, jax 0.10": "benchmark_xeon_jax0.10.json",
    "Xeon, jax 0.12": "benchmark_xeon_jax0.12.json",
}


def run(arguments: list[str], add: str, row: str, root: str) -> None:
    """Records the runs, if there are any, and rewrites the tables.

    Raises:
        InputError: a run cannot be recorded, or a README lacks a table.
    """
    del arguments  # none are taken
    if bool(add) != bool(row):
        raise InputError(
            f"got --add={add!r} and --row={row!r}, need both or neither; name the runs"
            f" and one of the rows {', '.join(recording.ROWS)}"
        )
    results = Path(root) / RESULTS
    if add:
        path = results / recording.RUNS
        recorded = files.read_json(path)
        for name in add.split(","):
            found = recording.record(Path(os.path.expanduser(name)))
            new_run = {"row": row, **found}
            recorded["runs"] = recording.added(recorded["runs"], new_run)
        files.write_json(path, recorded)
    for readme, tables in make_tables(results).items():
        path = Path(root) / readme
        text = path.read_text()
        new = rewritten(text, tables)
        if new != text:
            files.write_text(path, new)
            print(f"wrote {path}")


def rewritten(text: str, tables: Mapping[str, str]) -> str:
    """Returns a README with its tables replaced by those of the same names.

    Raises:
        InputError: it lacks one of the tables, or has one that there is not.
    """
    named = re.findall(r"<!-- table: (.*?) -->\n.*?<!-- end -->", text, re.DOTALL)
    if sorted(named) != sorted(tables):
        raise InputError(
            f"got a README with the tables {', '.join(named)}, need each of"
            f" {', '.join(tables)} once, between <!-- table: NAME --> and <!-- end -->"
        )
    for name, table in tables.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}"
    return text


def make_tables(results: Path) -> dict[Path, dict[str, str]]:
    """Returns README -> name of a table -> its Markdown.

    Args:
        results: folder of the JSON files.
    """
    runs = files.read_json(results / recording.RUNS)["runs"]
    rows = {
        name: own
        for name in recording.ROWS
        if (own := [run for run in runs if run["row"] == name])
    }
    search = files.read_json(results / "search_lenet5.json")["runs"]
    speeds = {
        column: files.read_json(results / file)["groups"]
        for column, file in SPEEDS.items()
    }
    first, second = READMES
    return {
        first: {
            "summary": markdown.summary(rows),
            "speed": markdown.fastest(speeds["Zen 5, jax 0.10"]),
        },
        second: {
            "networks": markdown.accuracies(rows, "networks"),
            "losses": markdown.losses(rows),
            "recipes": markdown.accuracies(rows, "recipes"),
            "curves": markdown.evaluations(rows),
            "lenet5": markdown.searched(search),
            "speed": markdown.speeds(speeds),
        },
    }


if __name__ == "__main__":
    options = {"add": "", "row": "", "root": str(recording.ROOT)}
    cli.main_with(run, doc=__doc__, options=options)
