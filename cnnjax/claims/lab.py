"""Trains what the rows ask for, each run once, and looks at what was trained."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax import assembly, experiment, manifest, runs, trained
from cnnjax import config as configs
from cnnjax.claims.budgets import Budget
from cnnjax.claims.ledger import Ledger
from cnnjax.data import augment
from cnnjax.data.datasets import Dataset
from cnnjax.fields import fields
from cnnjax.reporting import curves

# Of a run's last training figures the mean is kept, as one batch says little.
LAST_SHARE = 0.05


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
            self._loaded[kind] = assembly.load_data(
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
            "train.steps_per_call": 100,
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
        config = self.config(recipe, steps=steps, changes=changes)
        data = self._data[_kind(config)]
        parts = [f"{name}={value}" for name, value in (changes or {}).items()]
        seeds = f"seeds 0 to {self.budget.seeds - 1}"
        where = self.name_of(_kind(config))
        key = ", ".join([where, recipe, *parts, f"{steps} steps", seeds])
        folder = self._workdir / re.sub(r"[^\w.=]+", "-", key)
        if key not in self.used:
            self.used.append(key)
        saved = (folder / runs.CHECKPOINTS / str(steps)).is_dir()
        if key not in self._ledger.runs or (weights and not saved):
            if not (is_done(folder, config) and (saved or not weights)):
                print(f"\n== {key}", flush=True)
                experiment.train(
                    config,
                    folder,
                    default_name=data.default_name,
                    fallback=data.fallback,
                    dataset=self.data_of(_kind(config)),
                )
            self._ledger.put_run(key, _figures(folder))
        return Run(key, folder, config, self._ledger.runs[key])

    def about(self) -> dict[str, Any]:
        """Returns versions, machine, devices and commit of what is measured now."""
        mesh = assembly.choose_mesh(self.config("base", steps=1))
        about = manifest.describe(mesh, mode="jit", data={})
        kept = ("command", "versions", "machine", "devices", "commit")
        return {name: about[name] for name in kept}


def _kind(config: ConfigDict) -> str:
    return "cifar" if config.model.name == "CifarCNN" else "mnist"


def is_done(folder: Path, config: ConfigDict) -> bool:
    """Returns whether a run of `config` has ended there, perhaps of an older version.

    What a newer version adds to the fields, and leaves at its default, changes nothing.
    """
    if not (folder / runs.FINAL_METRICS).exists():
        return False
    known = fields(config.model.name)
    stored = runs.flatten(runs.read_json(folder / runs.CONFIG))
    asked = runs.flatten(config.to_dict())
    defaults = runs.flatten({name: known[name].default for name in known})
    return (
        all(
            stored.get(name, defaults[name]) == asked[name]
            for name in asked
            # The same set may lie elsewhere.
            if name not in (*runs.MAY_CHANGE, "data.dir")
            and not name.startswith(runs.CHANGES_BYTES)
        )
        and stored["train.steps"] == asked["train.steps"]
    )


def _figures(folder: Path) -> dict[str, Any]:
    final = runs.read_json(folder / runs.FINAL_METRICS)
    records, _ = curves.read_metrics(folder / runs.METRICS)
    training = [record for record in records if "train/loss" in record]
    tail = training[-max(1, round(LAST_SHARE * len(training))) :]
    evaluated = [record for record in records if "eval/accuracy" in record]
    about = runs.read_json(folder / runs.MANIFEST)
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


def accuracies(run: Run, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the accuracy of each seed's weights on any pictures, float64 [seeds].

    Args:
        run: trained with `weights`.
        images: uint8 [n, height, width, channels], of the data set's size.
        labels: int32 [n].
    """
    predicted = each_seed(run, images, _classes)
    return np.mean(predicted == labels, axis=1)


def _classes(model: Any, params: Any, images: jax.Array) -> jax.Array:
    return jax.numpy.argmax(model.apply({"params": params}, images), axis=-1)


def each_seed(
    run: Run,
    images: np.ndarray,
    look: Callable[[Any, Any, jax.Array], jax.Array],
    batch_size: int = 1000,
) -> np.ndarray:
    """Returns what `look` sees of every picture with every seed's weights.

    Args:
        run: trained with `weights`.
        images: uint8 [n, height, width, channels]; as evaluation treats them.
        look: (model, params, images as the network is fed) -> array [batch, ...].
        batch_size: pictures at a time.

    Returns:
        [seeds, n, ...].
    """
    network = trained.load(run.folder)

    @jax.jit
    def see(params: Any, batch: jax.Array) -> jax.Array:
        fed = augment.standard_view(batch, network.preprocessing)
        return look(network.model, params, fed)

    def of_seed(k: int) -> np.ndarray:
        params = jax.tree.map(lambda leaf: leaf[k], network.params)
        parts = range(0, len(images), batch_size)
        return np.concatenate(
            [np.asarray(see(params, images[i : i + batch_size])) for i in parts]
        )

    return np.stack([of_seed(k) for k in range(network.num_seeds)])
