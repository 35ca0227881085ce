"""The lab: trains the runs that the rows need, each only once."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from chapter.budgets import Budget
from chapter.ledger import Ledger
from chapter.past import Run, about, figures
from cnnjax import config as configs
from cnnjax import launch, loading
from cnnjax.data.dataset import Dataset
from cnnjax.models.facts import facts_of
from cnnjax.parallel import make_partitioner
from cnnjax.workdir import files, manifest
from search import changed


@dataclasses.dataclass(frozen=True)
class Data:
    """Where a data set is found.

    Attributes:
        name: of the data set; "" means the one that the network's class names, or its
            embedded stand-in if that is missing.
        directory: TFDS's data folder; "" means its default.
    """

    name: str
    directory: str


class Lab:
    """Trains and remembers the runs that rows are measured with."""

    def __init__(
        self,
        recipes: Mapping[str, ConfigDict],
        data: Mapping[str, Data],
        budget: Budget,
        ledger: Ledger,
        workdir: Path,
    ) -> None:
        """Trains nothing yet.

        Args:
            recipes: name of a file in `experiments/configs` -> its configuration.
            data: "cifar" and "mnist" -> data set of the networks of that kind.
            budget: seeds and steps of every run.
            ledger: the results that are known already.
            workdir: folder that holds one subfolder per run.
        """
        self._recipes, self._data = recipes, data
        self._ledger, self._workdir = ledger, workdir
        self.budget = budget
        self._loaded: dict[str, Dataset] = {}
        self.used: list[str] = []  # keys of the runs of the current row

    def data_of(self, kind: str) -> Dataset:
        """Returns the data set of "cifar" or "mnist", which is read only once."""
        if kind not in self._loaded:
            recipe = "base" if kind == "cifar" else "mnist"
            self._loaded[kind] = loading.load_data(self.config(recipe, steps=1))
        return self._loaded[kind]

    def name_of(self, kind: str) -> str:
        """Returns the name of the data set that is used for "cifar" or "mnist"."""
        return self._data[kind].name or self.data_of(kind).name

    def config(
        self, recipe: str, *, steps: int, changes: Mapping[str, Any] | None = None
    ) -> ConfigDict:
        """Returns a recipe with this lab's data and seeds, and with `changes` made."""
        data = self._data[_kind(self._recipes[recipe])]
        fixed = {
            "num_seeds": self.budget.seeds,
            "data.name": data.name,
            "data.dir": data.directory,
            "data.pipeline": "device",
            "train.steps": steps,
            # Several calls even for a short run, so that it can be interrupted.
            "train.steps_per_call": max(1, min(100, steps // 4)),
            "train.tensorboard": False,
            "parallel.num_devices": 0,
        }
        return changed(self._recipes[recipe], {**fixed, **(changes or {})})

    def train(
        self,
        recipe: str,
        *,
        steps: int,
        changes: Mapping[str, Any] | None = None,
        weights: bool = False,
    ) -> Run:
        """Returns a run of all seeds: the ledger's, or one that is trained now.

        Args:
            recipe: name of a file in `experiments/configs`.
            steps: number of training steps.
            changes: configuration fields that differ from the recipe -> their values.
            weights: whether the run's last checkpoint is needed, not only its figures.

        Raises:
            InputError: the data set is missing.
            RunError: the training failed.
            StopRequestedError: SIGTERM or Ctrl-C; the next call resumes the run.
        """
        changes = self._real(recipe, changes or {})
        config = self.config(recipe, steps=steps, changes=changes)
        kind = _kind(config)
        parts = [f"{name}={value}" for name, value in changes.items()]
        seeds = f"seeds 0 to {self.budget.seeds - 1}"
        key = ", ".join([self.name_of(kind), recipe, *parts, f"{steps} steps", seeds])
        folder = self._workdir / re.sub(r"[^\w.=]+", "-", key)
        if key not in self.used:
            self.used.append(key)
        # A run killed between its last checkpoint and its final metrics has not ended.
        saved = (folder / files.CHECKPOINTS / str(steps)).is_dir() and (
            folder / files.FINAL_METRICS
        ).exists()
        if key not in self._ledger.runs or (weights and not saved):
            print(f"\n== {key}", flush=True)
            if weights and not saved:  # it may have ended, but left no checkpoint
                (folder / files.FINAL_METRICS).unlink(missing_ok=True)
            launch.train(config, folder, dataset=self.data_of(kind))
        if key not in self._ledger.runs:
            self._ledger.put_run(key, figures(folder))
        # Weights that are trained again, perhaps on another machine, have their own
        # figures. The ledger keeps the old ones, because finished rows depend on them.
        known = figures(folder) if weights else self._ledger.runs[key]
        return Run(key, folder, config, known)

    def _real(self, recipe: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        # A value equal to the recipe's is no change; else one run would have two keys.
        own, asked = configs.flatten(self._recipes[recipe]), configs.flatten(changes)
        return {name: changes[name] for name in changes if own[name] != asked[name]}

    def about(self) -> dict[str, Any]:
        """Returns this measurement's command, versions, machine, devices and commit."""
        config = self.config("base", steps=1)
        partitioner = make_partitioner(
            config.parallel.num_devices,
            mode=config.parallel.mode,
            num_seeds=config.num_seeds,
            batch_size=config.train.batch_size,
        )
        return about(manifest.describe_machine(partitioner))


def lasting(recipe: ConfigDict) -> dict[str, Any]:
    """Returns the fields that all runs of a recipe share, as flat names -> values.

    Fields that a lab sets or that do not change what is learned are left out.
    """
    own = ("num_seeds", "data.name", "data.dir")
    found = configs.lasting(recipe.to_dict())
    return {name: value for name, value in found.items() if name not in own}


def _kind(config: ConfigDict) -> str:
    facts = facts_of(loading.make_model(config, num_classes=10))
    return "mnist" if facts.dataset == "mnist" else "cifar"
