"""The lab: trains the runs that the rows need, each only once."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from chapter.budgets import Budget
from chapter.ledger import Ledger
from chapter.past import Run, figures
from cnnjax import assembly, launch, loading
from cnnjax import config as configs
from cnnjax.data.load import Dataset
from cnnjax.workdir import files, manifest


@dataclasses.dataclass(frozen=True)
class Data:
    """Where a data set is found.

    Attributes:
        name: of the data set; "" means `default_name`, or `fallback` if it is missing.
        directory: TFDS's data folder; "" means its default.
        default_name: data set that the chapter uses.
        fallback: embedded data set that stands in for it.
    """

    name: str
    directory: str
    default_name: str
    fallback: str


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
            data = self._data[kind]
            config = self.config(recipe, steps=1)
            self._loaded[kind] = loading.load_data(
                config, default_name=data.default_name, fallback=data.fallback
            )
        return self._loaded[kind]

    def name_of(self, kind: str) -> str:
        """Returns the name of the data set that is used for "cifar" or "mnist"."""
        return self._data[kind].name or self.data_of(kind).name

    def config(
        self, recipe: str, *, steps: int, changes: Mapping[str, Any] | None = None
    ) -> ConfigDict:
        """Returns a recipe with this lab's data and seeds, and with `changes` made."""
        config = self._recipes[recipe].copy_and_resolve_references()
        data = self._data[_kind(config)]
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
        for name, value in {**fixed, **(changes or {})}.items():
            section, _, leaf = name.rpartition(".")
            (config[section] if section else config)[leaf] = value
        configs.validate(config)
        return config.lock()

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
        data = self._data[_kind(config)]
        parts = [f"{name}={value}" for name, value in changes.items()]
        seeds = f"seeds 0 to {self.budget.seeds - 1}"
        where = self.name_of(_kind(config))
        key = ", ".join([where, recipe, *parts, f"{steps} steps", seeds])
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
            launch.train(
                config,
                folder,
                default_name=data.default_name,
                fallback=data.fallback,
                dataset=self.data_of(_kind(config)),
            )
        if key not in self._ledger.runs:
            self._ledger.put_run(key, figures(folder))
        # Weights that are trained again, perhaps on another machine, have their own
        # figures. The ledger keeps the old ones, because finished rows depend on them.
        known = figures(folder) if weights else self._ledger.runs[key]
        return Run(key, folder, config, known)

    def _real(self, recipe: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        # A value equal to the recipe's is no change; else one run would have two keys.
        own = files.flatten(self._recipes[recipe].to_dict())
        asked = files.flatten(changes)
        return {name: changes[name] for name in changes if own[name] != asked[name]}

    def about(self) -> dict[str, Any]:
        """Returns this measurement's command, versions, machine, devices and commit."""
        mesh = assembly.choose_mesh(self.config("base", steps=1))
        about = manifest.describe(mesh, mode="jit", data={})
        kept = ("command", "versions", "machine", "devices", "commit")
        return {name: about[name] for name in kept}


def lasting(recipe: ConfigDict) -> dict[str, Any]:
    """Returns the fields that all runs of a recipe share, as flat names -> values.

    Fields that a lab sets or that do not change what is learned are left out.
    """
    own = ("num_seeds", "data.name", "data.dir", *files.MAY_CHANGE)
    flat = files.flatten(recipe.to_dict())
    return {
        name: value
        for name, value in flat.items()
        if name not in own and not name.startswith(files.CHANGES_BYTES)
    }


def _kind(config: ConfigDict) -> str:
    return "cifar" if config.model.name == "CifarCNN" else "mnist"
