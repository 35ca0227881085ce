"""Long runs that were made by hand and are recorded in `results/runs.json`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.errors import InputError
from cnnjax.workdir import files

FILE = "runs.json"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A row of recorded runs: one recipe, one or several seeds.

    It has what rows ask of a `past.Run`.

    Attributes:
        finals: seed -> what its `final_metrics.json` says, one figure for each name.
    """

    finals: Mapping[int, Mapping[str, Any]]

    def values(self, name: str = "test/accuracy") -> np.ndarray:
        """Returns one figure for each seed, float64 [seeds], in the order of seeds."""
        return np.array([self.finals[k][name] for k in sorted(self.finals)], np.float64)

    @property
    def dataset(self) -> str:
        """Name of the data set that they were trained and tested on."""
        return str(next(iter(self.finals.values()))["dataset"])

    @property
    def steps(self) -> int:
        """Number of their training steps."""
        return int(next(iter(self.finals.values()))["steps"])


def read(path: Path) -> list[Mapping[str, Any]]:
    """Returns the records of a file such as `results/runs.json`; none if it is missing.

    A record is of one program: "row", the name of what was run, such as "long";
    "seeds", a list; and "final", the content of `final_metrics.json`, where figures are
    lists if there are several seeds.

    Raises:
        InputError: the file is not JSON of that form.
    """
    if not path.exists():
        return []
    records = files.read_json(path).get("runs")
    needed = {"row", "seeds", "final"}
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and needed <= record.keys() for record in records
    ):
        raise InputError(
            f"got {path}, need {{'runs': [{{'row': ..., 'seeds': [...], 'final': ...}},"
            " ...]}}; restore the file"
        )
    return records


def pick(
    records: Sequence[Mapping[str, Any]], names: Sequence[str], dataset: str
) -> list[Recorded]:
    """Returns the rows of those names on a data set, each on the seeds that all have.

    The list is empty if a row is missing or there is no common seed.

    Raises:
        InputError: the runs of a row are of different lengths, or a seed is there
            twice.
    """
    rows = [_of(records, name, dataset) for name in names]
    common = set.intersection(*(set(row) for row in rows))
    if not common:
        return []
    return [Recorded({seed: row[seed] for seed in sorted(common)}) for row in rows]


def _of(
    records: Sequence[Mapping[str, Any]], name: str, dataset: str
) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        final, seeds = record["final"], record["seeds"]
        if record["row"] != name or final["dataset"] != dataset:
            continue
        for i, seed in enumerate(seeds):
            one = {k: v[i] if isinstance(v, list) else v for k, v in final.items()}
            others = [other["steps"] for other in found.values()]
            if seed in found or any(steps != one["steps"] for steps in others):
                raise InputError(
                    f"got the recorded row {name!r} with seeds {sorted(found)} of"
                    f" {others} steps and again seed {seed} of {one['steps']} steps,"
                    f" need every seed once and of equal length; mend {FILE}"
                )
            found[seed] = one
    return found
