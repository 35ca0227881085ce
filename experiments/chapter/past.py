"""Finished runs and the figures that are kept of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cnnjax.reporting import curves
from cnnjax.workdir import files

# Training figures are averaged over this last share of them, as one batch says little.
LAST_SHARE = 0.05
# What is kept of a manifest.
ABOUT = ("command", "versions", "machine", "devices", "commit")


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished training of some seeds in one program.

    Attributes:
        key: description that identifies it in the ledger.
        folder: its workdir, which may have been deleted.
        config: its configuration.
        figures: what the function `figures` returns.
    """

    key: str
    folder: Path
    config: ConfigDict
    figures: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training of all seeds.

    Attributes:
        parts: the trainings that it consists of, at least one, in the order of seeds.
    """

    parts: tuple[Part, ...]

    def values(self, name: str = "test/accuracy") -> np.ndarray:
        """Returns one figure for each seed, float64 [seeds]."""
        found = [np.atleast_1d(part.figures[name]) for part in self.parts]
        return np.concatenate(found).astype(np.float64)

    @property
    def highest(self) -> np.ndarray:
        """Each seed's highest accuracy in the evaluations of its run, [seeds]."""
        return np.concatenate(
            [
                np.max(list(part.figures["eval/accuracy/curve"].values()), axis=0)
                for part in self.parts
            ]
        )

    @property
    def dataset(self) -> str:
        """Name of the data set that it was trained and tested on."""
        return str(self.parts[0].figures["dataset"])

    @property
    def steps(self) -> int:
        """Number of its training steps."""
        return int(self.parts[0].config.train.steps)


def figures(folder: Path) -> dict[str, Any]:
    """Returns the figures of the finished run in `folder`.

    They are those of `final_metrics.json`, `train/loss/first`, `train/loss/last` and
    `train/accuracy/last` (means over the last 5% of the logged steps), and
    `eval/accuracy/curve` (step -> accuracy), with lists of one value per seed; and the
    command, versions, machine, devices and commit of the run.

    Raises:
        InputError: the folder holds no finished run.
    """
    final = files.read_json(folder / files.FINAL_METRICS)
    records, _ = curves.read_metrics(folder / files.METRICS)
    training = [record for record in records if "train/loss" in record]
    tail = training[-max(1, round(LAST_SHARE * len(training))) :]
    evaluated = [record for record in records if "eval/accuracy" in record]
    return {
        **final,
        "train/loss/first": training[0]["train/loss"],
        "train/loss/last": _mean(tail, "train/loss"),
        "train/accuracy/last": _mean(tail, "train/accuracy"),
        "eval/accuracy/curve": {r["step"]: r["eval/accuracy"] for r in evaluated},
        **about(files.read_json(folder / files.MANIFEST)),
    }


def about(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the command, versions, machine, devices and commit of a manifest."""
    return {name: manifest[name] for name in ABOUT}


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    values: list[float] = np.mean([record[name] for record in records], 0).tolist()
    return values
