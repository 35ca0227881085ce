"""Runs that have ended, and what is kept of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cnnjax.reporting import curves
from cnnjax.workdir import files

# Of a run's last training figures the mean is kept, as one batch says little.
LAST_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Run:
    """A training of several seeds that has ended.

    Attributes:
        key: what it is, in words.
        folder: its workdir, which need not be there any more.
        config: its configuration.
        figures: of `final_metrics.json`, where those of a seed are lists; and
            `train/loss/first`, `train/loss/last`, `train/accuracy/last`.
    """

    key: str
    folder: Path
    config: ConfigDict
    figures: Mapping[str, Any]

    def values(self, name: str = "test/accuracy") -> np.ndarray:
        """Returns a figure of each seed, float64 [seeds]."""
        return np.atleast_1d(np.array(self.figures[name], np.float64))

    @property
    def dataset(self) -> str:
        """The name of what it was trained and tested on."""
        return str(self.figures["dataset"])


def figures(folder: Path) -> dict[str, Any]:
    """Returns what is kept of the run in `folder`: see `Run.figures`.

    Also `eval/accuracy/curve`, step -> accuracy, and what made it: its command,
    versions, machine, devices and commit.

    Raises:
        InputError: it is no run that has ended.
    """
    final = files.read_json(folder / files.FINAL_METRICS)
    records, _ = curves.read_metrics(folder / files.METRICS)
    training = [record for record in records if "train/loss" in record]
    tail = training[-max(1, round(LAST_SHARE * len(training))) :]
    evaluated = [record for record in records if "eval/accuracy" in record]
    about = files.read_json(folder / files.MANIFEST)
    return {
        **final,
        "train/loss/first": training[0]["train/loss"],
        "train/loss/last": _mean(tail, "train/loss"),
        "train/accuracy/last": _mean(tail, "train/accuracy"),
        "eval/accuracy/curve": {r["step"]: r["eval/accuracy"] for r in evaluated},
        **{
            name: about[name]
            for name in ("command", "versions", "machine", "devices", "commit")
        },
    }


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    values: list[float] = np.mean([record[name] for record in records], 0).tolist()
    return values
