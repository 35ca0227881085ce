"""A run: from a configuration and a data set to everything that trains or uses it."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax import config as configs
from cnnjax import loading
from cnnjax.data.dataset import Dataset, Split
from cnnjax.errors import InputError
from cnnjax.evaluation import Evaluator
from cnnjax.parallel import Partitioner, make_partitioner
from cnnjax.recipe import Recipe, make_recipe
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import TrainState, init_state
from cnnjax.updates import ResidentUpdate, StreamedUpdate, Update
from cnnjax.workdir import files
from cnnjax.workdir.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration, its data, and what is made of both; built by `make_run`.

    Attributes:
        config: validated.
        dataset: what is trained and tested on.
        validation: held out of the training pictures; None where nothing is.
        recipe: network, loss, optimiser and preprocessing.
        partitioner: the devices, and how many seeds share them.
    """

    config: ConfigDict
    dataset: Dataset
    validation: Split | None
    recipe: Recipe
    partitioner: Partitioner

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the network is fed."""
        return self.recipe.preprocessing.output_shape(self.dataset.image_shape)

    @property
    def seeds(self) -> range:
        """The seeds that are trained, the run's own first."""
        return range(self.config.seed, self.config.seed + self.config.num_seeds)

    def init_state(self) -> TrainState:
        """Returns the state before the first update, on the devices.

        With several seeds every array leads with [num_seeds]; each network begins as
        that of a run of its seed alone does, bit for bit.
        """
        shape = self.dataset.image_shape
        states = [init_state(self.recipe, shape, seed=seed) for seed in self.seeds]
        placed: TrainState = self.partitioner.put_each(states)
        return placed

    def abstract_state(self) -> TrainState:
        """Returns the shapes and dtypes of a state, on the first device."""
        return abstract_state(
            self.recipe, self.dataset.image_shape, self.config.num_seeds
        )

    def updates(self, first_step: int, clocks: Clocks) -> Update:
        """Returns what does the updates of the run from `first_step` on."""
        train, split = self.config.train, self.dataset.train
        if self.config.data.pipeline == "device":
            return ResidentUpdate(
                self.recipe,
                split,
                self.partitioner,
                seed=self.config.seed,
                batch_size=train.batch_size,
                steps_per_call=train.steps_per_call,
                clocks=clocks,
            )
        # TensorFlow takes seconds to import, and only this pipeline needs it.
        from cnnjax.data import tf_pipeline

        batches = tf_pipeline.batches(
            split,
            self.recipe.preprocessing,
            seed=self.config.seed,
            batch_size=train.batch_size,
            steps=range(first_step, train.steps),
            workers=self.config.data.workers,
            rows=self.partitioner.rows(train.batch_size),
        )
        return StreamedUpdate(self.recipe, batches, self.partitioner, clocks)

    def evaluator(self, clocks: Clocks, num_views: int = 1) -> Evaluator:
        """Returns what evaluates states of this run, on so many views of a picture."""
        return Evaluator(
            self.recipe,
            self.partitioner,
            batch_size=self.config.eval.batch_size,
            clocks=clocks,
            num_views=num_views,
            top_k=self.config.eval.top_k,
        )

    def identity(self) -> dict[str, Any]:
        """Returns the run's identity, see `config.identity`."""
        return configs.identity(self.config.to_dict(), self.dataset.fingerprint)


def make_run(
    config: ConfigDict, dataset: Dataset, validation: Split | None = None
) -> Run:
    """Returns the run that a configuration describes on a data set.

    Args:
        config: validated.
        dataset: from `loading.load_data`, without what is held out.
        validation: from `loading.hold_out`.

    Raises:
        InputError: the network does not take such pictures or so many classes, or the
            devices do not fit.
    """
    parallel = config.parallel
    try:
        partitioner = make_partitioner(
            parallel.num_devices,
            mode=parallel.mode,
            num_seeds=config.num_seeds,
            batch_size=config.train.batch_size,
        )
    except ValueError as error:
        raise InputError(
            f"parallel.num_devices={parallel.num_devices}: {error}"
        ) from error
    with fitting(config, dataset.name):
        recipe = recipe_of(config, dataset.num_classes)
        abstract_state(recipe, dataset.image_shape)
    return Run(config, dataset, validation, recipe, partitioner)


def load_run(workdir: Path, config: ConfigDict) -> Run:
    """Returns a run that was trained before, to use its network with data.

    Args:
        workdir: of the run.
        config: the run's, perhaps with other data.

    Raises:
        InputError: the data are missing, do not fit or have other classes.
    """
    return make_run(config, loading.load_data_of(config, workdir))


def recipe_of(config: ConfigDict, num_classes: int) -> Recipe:
    """Returns the recipe that `config.model`, `optim` and `data` describe."""
    optim, data = config.optim, config.data
    return make_recipe(
        loading.make_model(config, num_classes),
        optimizer=optim.name,
        learning_rate=optim.learning_rate,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        schedule=optim.schedule,
        decay_steps=optim.decay_steps or max(1, config.train.steps),
        decay_rate=optim.decay_rate,
        staircase=optim.staircase,
        warmup_steps=optim.warmup_steps,
        l1=optim.get("l1", 0.0),
        l2=optim.get("l2", 0.0),
        label_smoothing=optim.label_smoothing,
        ema_decay=optim.ema_decay,
        crop=data.crop,
        distortions=data.distortions,
        normalise=data.normalise,
    )


def steps_may_change(config: ConfigDict) -> bool:
    """Returns whether the schedule stays what it is when `train.steps` changes."""
    optim = config.optim
    return optim.schedule == "constant" or optim.decay_steps > 0


def abstract_state(
    recipe: Recipe, image_shape: tuple[int, int, int], num_seeds: int = 1
) -> TrainState:
    """Returns the shapes and dtypes of a state, on the first device; computes nothing.

    Args:
        recipe: of the run.
        image_shape: (height, width, channels) of the pictures, before any crop.
        num_seeds: of the run; with more than one every array leads with it.
    """
    one = jax.eval_shape(lambda: init_state(recipe, image_shape, seed=0))
    lead = () if num_seeds == 1 else (num_seeds,)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state: TrainState = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (*lead, *leaf.shape), leaf.dtype, sharding=place
        ),
        one,
    )
    return state


def restore(workdir: Path, like: TrainState, which: str = "latest") -> TrainState:
    """Returns the newest good state of a run, and leaves the run as it is.

    Args:
        workdir: of the run.
        like: a state of the same network and optimiser, perhaps an abstract one.
        which: "latest", or "best": the highest accuracy on the validation split.

    Raises:
        InputError: the run has no such checkpoint, or is of another network, or its
            checkpoints are of another run.
        RunError: no such checkpoint is good.
    """
    directory = workdir / files.CHECKPOINTS
    restored = None
    if directory.is_dir():
        run = files.of_workdir(workdir)
        with Checkpoints(directory, run=run, read_only=True) as checkpoints:
            best = which == "best"
            read = checkpoints.restore_best if best else checkpoints.restore_latest
            restored = read(like)
    if restored is None:
        what = "checkpoint"
        if which == "best":
            what = "best checkpoint, which takes data.val_examples"
        raise InputError(
            f"{workdir} has no {what}: need a run that has saved one; let it train"
        )
    return restored[0]


def of_one_seed(state: TrainState, k: int) -> TrainState:
    """Returns the state of the k-th network of a run, as a run of its seed has it.

    Args:
        state: of a run of one or several seeds.
        k: from 0, the only one in a run of one seed.

    Raises:
        InputError: the run has fewer.

    Returns:
        The state without the leading [num_seeds], on the host.
    """
    num_seeds = state.step.size
    if not 0 <= k < num_seeds:
        raise InputError(
            f"got replica {k}, need 0 to {num_seeds - 1}: the run is of {num_seeds}"
            " seeds; name one of them"
        )
    state = jax.device_get(state)
    return state if np.ndim(state.step) == 0 else jax.tree.map(lambda x: x[k], state)


@contextlib.contextmanager
def fitting(config: ConfigDict, dataset: str) -> Iterator[None]:
    """Turns a ValueError inside into an InputError: the network does not fit the data.

    Args:
        config: of the network.
        dataset: the name of the data.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f"{config.model.name} does not fit {dataset}: {error}"
        ) from error
