"""Trains what the rows ask for, each run once, and looks at what was trained."""

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
    """Where the pictures are.

    Attributes:
        name: of the set; "" for the script's own, or its embedded stand-in.
        directory: TFDS's data dir, or "".
        default_name: of the set that the chapter uses.
        fallback: the embedded one.
    """

    name: str
    directory: str
    default_name: str
    fallback: str


class Lab:
    """What rows are measured with."""

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
            recipes: name of a file of `experiments/configs` -> configuration.
            data: "cifar" and "mnist" -> the pictures of the two kinds of network.
            budget: seeds and steps.
            ledger: of what is known already.
            workdir: folder of the runs.
        """
        self._recipes, self._data = recipes, data
        self._ledger, self._workdir = ledger, workdir
        self.budget = budget
        self._loaded: dict[str, Dataset] = {}
        self.used: list[str] = []  # the runs that the row in hand rests on

    def data_of(self, kind: str) -> Dataset:
        """Returns the pictures of "cifar" or "mnist", read once."""
        if kind not in self._loaded:
            recipe = "base" if kind == "cifar" else "mnist"
            data = self._data[kind]
            config = self.config(recipe, steps=1)
            self._loaded[kind] = loading.load_data(
                config, default_name=data.default_name, fallback=data.fallback
            )
        return self._loaded[kind]

    def name_of(self, kind: str) -> str:
        """Returns the name of the pictures of "cifar" or "mnist" at hand."""
        return self._data[kind].name or self.data_of(kind).name

    def config(
        self, recipe: str, *, steps: int, changes: Mapping[str, Any] | None = None
    ) -> ConfigDict:
        """Returns a recipe on this lab's data, with its seeds, and fields changed."""
        config = self._recipes[recipe].copy_and_resolve_references()
        data = self._data[_kind(config)]
        fixed = {
            "num_seeds": self.budget.seeds,
            "data.name": data.name,
            "data.dir": data.directory,
            "data.pipeline": "device",
            "train.steps": steps,
            # Not all in one call, so that a short run too can be stopped within.
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
        """Returns the run of every seed: what is known of it, or trained now.

        Args:
            recipe: name of a file of `experiments/configs`.
            steps: of training.
            changes: field -> value, in place of the recipe's own.
            weights: whether its last checkpoint is needed too.

        Raises:
            InputError: the data are missing.
            RunError: it failed.
            StopRequestedError: SIGTERM or Ctrl-C; called again it goes on.
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
        # Killed between the last checkpoint and the figures, it has not ended.
        saved = (folder / files.CHECKPOINTS / str(steps)).is_dir() and (
            folder / files.FINAL_METRICS
        ).exists()
        if key not in self._ledger.runs or (weights and not saved):
            print(f"\n== {key}", flush=True)
            if weights and not saved:  # ended, perhaps, but there is nothing to load
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
        # Weights that are trained again, perhaps on another machine, have figures of
        # their own; what the ledger holds stays, as finished rows rest on it.
        known = figures(folder) if weights else self._ledger.runs[key]
        return Run(key, folder, config, known)

    def _real(self, recipe: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        # What is the recipe's own is no change, or one run would have two keys.
        own = files.flatten(self._recipes[recipe].to_dict())
        asked = files.flatten(changes)
        return {name: changes[name] for name in changes if own[name] != asked[name]}

    def about(self) -> dict[str, Any]:
        """Returns versions, machine, devices and commit of what is measured now."""
        mesh = assembly.choose_mesh(self.config("base", steps=1))
        about = manifest.describe(mesh, mode="jit", data={})
        kept = ("command", "versions", "machine", "devices", "commit")
        return {name: about[name] for name in kept}


def lasting(recipe: ConfigDict) -> dict[str, Any]:
    """Returns the fields of a recipe that every run of it has, flat.

    Those that a lab sets itself are not among them, nor those that do not change what
    is learned.
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
