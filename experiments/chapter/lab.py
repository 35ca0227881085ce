"""The lab: trains the runs that the rows need, each only once."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from chapter import recorded
from chapter.budgets import Budget
from chapter.ledger import Ledger
from chapter.past import Part, Run, about, figures
from chapter.recorded import Recorded
from cnnjax import config as configs
from cnnjax import launch, loading
from cnnjax.data.dataset import Dataset
from cnnjax.models.facts import facts_of
from cnnjax.parallel import make_partitioner
from cnnjax.workdir import files, identity, manifest
from search import changed

# So many seeds are trained in one program. A plan that is longer, or has other looks,
# then finds the same runs in the ledger, and all of them are compiled once.
TOGETHER = 4
T = TypeVar("T")


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
        records: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Trains nothing yet.

        Args:
            recipes: name of a file in `experiments/configs` -> its configuration.
            data: "cifar" and "mnist" -> data set of the networks of that kind.
            budget: seeds and steps of every run.
            ledger: the results that are known already.
            workdir: folder that holds one subfolder per run.
            records: long runs that need not be trained, as `recorded.read` returns
                them.
        """
        self._recipes, self._data = recipes, data
        self._ledger, self._workdir, self._records = ledger, workdir, records
        self.budget = budget
        self.seeds = budget.seeds[0]  # number of seeds at the present look
        self._loaded: dict[str, Dataset] = {}
        self._computed: dict[str, Any] = {}
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

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Returns what `compute` returned when it was first called by this name."""
        if name not in self._computed:
            self._computed[name] = compute()
        result: T = self._computed[name]
        return result

    def recorded(self, *names: str) -> list[Run | Recorded]:
        """Returns the recorded runs of these rows, each on the seeds that all have.

        The list is empty if a row is missing for this lab's data set, and in the quick
        budget, which shows that everything runs.

        Raises:
            InputError: the records contradict each other.
        """
        if not self._records or self.budget.name == "quick":
            return []
        found = recorded.pick(self._records, names, self.name_of("cifar"))
        if found:
            self._use(f"{recorded.FILE}: {', '.join(names)}")
        return list(found)

    def config(
        self,
        recipe: str,
        *,
        steps: int,
        changes: Mapping[str, Any] | None = None,
        seeds: range | None = None,
    ) -> ConfigDict:
        """Returns a recipe with this lab's data, some seeds, and `changes` made.

        Without `seeds` they are those of the first program.
        """
        data = self._data[_kind(self._recipes[recipe])]
        seeds = seeds or self._programs()[0]
        fixed = {
            "seed": seeds.start,
            "num_seeds": len(seeds),
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
        """Returns a run of all seeds of this look: the ledger's, or trained now.

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
        kind = _kind(self._recipes[recipe])
        words = [f"{name}={value}" for name, value in changes.items()]
        what = [self.name_of(kind), recipe, *words, f"{steps} steps"]
        parts = []
        for seeds in self._programs():
            config = self.config(recipe, steps=steps, changes=changes, seeds=seeds)
            key = ", ".join([*what, f"seeds {seeds[0]} to {seeds[-1]}"])
            parts.append(self._part(key, config, weights))
        return Run(tuple(parts))

    def _programs(self) -> list[range]:
        """Returns the seeds that are trained together, for each program."""
        firsts = range(0, self.seeds, TOGETHER)
        return [range(first, min(first + TOGETHER, self.seeds)) for first in firsts]

    def _use(self, key: str) -> None:
        if key not in self.used:
            self.used.append(key)

    def _part(self, key: str, config: ConfigDict, weights: bool) -> Part:
        folder = self._workdir / re.sub(r"[^\w.=]+", "-", key)
        steps = config.train.steps
        self._use(key)
        # A run killed between its last checkpoint and its final metrics has not ended.
        saved = (folder / files.CHECKPOINTS / str(steps)).is_dir() and (
            folder / files.FINAL_METRICS
        ).exists()
        if key not in self._ledger.runs or (weights and not saved):
            print(f"\n== {key}", flush=True)
            if weights and not saved:  # it may have ended, but left no checkpoint
                (folder / files.FINAL_METRICS).unlink(missing_ok=True)
            launch.train(config, folder, dataset=self.data_of(_kind(config)))
        if key not in self._ledger.runs:
            self._ledger.put_run(key, figures(folder))
        # Weights that are trained again, perhaps on another machine, have their own
        # figures. The ledger keeps the old ones, because finished rows depend on them.
        known = figures(folder) if weights else self._ledger.runs[key]
        return Part(key, folder, config, known)

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
    found = identity.lasting(recipe.to_dict())
    return {name: value for name, value in found.items() if name not in own}


def _kind(config: ConfigDict) -> str:
    facts = facts_of(loading.make_model(config, num_classes=10))
    return "mnist" if facts.dataset == "mnist" else "cifar"
