"""A run: what trains or evaluates a network, built from a configuration and data."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax import loading
from cnnjax.config import for_platform
from cnnjax.data.dataset import Dataset, Split
from cnnjax.errors import InputError
from cnnjax.evaluation import Evaluator
from cnnjax.models.checking import check_network
from cnnjax.parallel import Partitioner, make_partitioner
from cnnjax.recipe import Recipe, make_recipe
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import TrainState, init_state
from cnnjax.updates import ResidentUpdate, StreamedUpdate, Update
from cnnjax.workdir import files
from cnnjax.workdir.checkpoints import Checkpoints
from cnnjax.workdir.identity import make_identity


@dataclasses.dataclass(frozen=True)
class Run:
    """A validated configuration, its data, and what `make_run` builds from both.

    Attributes:
        config: validated, with what pays here chosen (`config.for_platform`).
        dataset: the data for training and testing.
        validation: images held out of the training split, or the data set's own
            validation split; None if there are none.
        recipe: network, loss, optimiser and preprocessing.
        partitioner: the devices, and the number of seeds that share them.
    """

    config: ConfigDict
    dataset: Dataset
    validation: Split | None
    recipe: Recipe
    partitioner: Partitioner

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the network's input."""
        return self.recipe.preprocessing.output_shape(self.dataset.image_shape)

    @property
    def seeds(self) -> range:
        """The seeds that are trained, beginning with the configured one."""
        return range(self.config.seed, self.config.seed + self.config.num_seeds)

    def init_state(self) -> TrainState:
        """Returns the state before the first update, on the devices.

        With several seeds every array leads with [num_seeds]; each network starts bit
        for bit as in a run of its seed alone.
        """
        shape = self.dataset.image_shape
        states = [init_state(self.recipe, shape, seed=seed) for seed in self.seeds]
        placed: TrainState = self.partitioner.put_each(states)
        return placed

    def abstract_state(self) -> TrainState:
        """Returns the shapes and dtypes of a state, on the first device."""
        shape = self.dataset.image_shape
        return abstract_state(self.recipe, shape, self.config.num_seeds)

    def updates(self, first_step: int, clocks: Clocks) -> Update:
        """Returns the object that makes the updates of the run from `first_step` on."""
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
        """Returns the evaluator of this run's states, with `num_views` per image."""
        return Evaluator(
            self.recipe,
            self.partitioner,
            batch_size=self.config.eval.batch_size,
            clocks=clocks,
            num_views=num_views,
            top_k=self.config.eval.top_k,
        )

    def identity(self, began: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the run's identity, see `identity.make_identity`."""
        return make_identity(self.config.to_dict(), self.dataset.fingerprint, began)


def make_run(
    config: ConfigDict, dataset: Dataset, validation: Split | None = None
) -> Run:
    """Returns the run that a validated configuration describes on a data set.

    `validation` is not part of the training split, see `loading.hold_out`.

    Raises:
        InputError: the network does not fit the images or classes, or the devices do
            not fit the batch or seeds.
    """
    config = for_platform(config, jax.default_backend()).lock()
    parallel = config.parallel
    try:
        partitioner = make_partitioner(
            parallel.num_devices,
            mode=parallel.mode,
            num_seeds=config.num_seeds,
            batch_size=config.train.batch_size,
            vmap_seeds=parallel.vmap_seeds,
        )
    except ValueError as error:
        message = f"parallel.num_devices={parallel.num_devices}: {error}"
        raise InputError(message) from error
    with loading.fitting(config, dataset.name):
        recipe = recipe_of(config, dataset.num_classes)
        check_network(
            recipe.model,
            recipe.preprocessing.output_shape(dataset.image_shape),
            num_classes=dataset.num_classes,
            data=dataset.name,
        )
        abstract_state(recipe, dataset.image_shape)
    return Run(config, dataset, validation, recipe, partitioner)


def load_run(workdir: Path, config: ConfigDict) -> Run:
    """Returns the run of a trained network, to use that network with data.

    `config` is the configuration of the run in `workdir`, perhaps with other data.

    Raises:
        InputError: the data are missing, do not fit or have other classes.
    """
    return make_run(config, loading.load_data_of(config, workdir))


def recipe_of(config: ConfigDict, num_classes: int) -> Recipe:
    """Returns the recipe that a configuration's model, optim and data describe."""
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
    """Returns whether the schedule does not depend on `train.steps`."""
    optim = config.optim
    return optim.schedule == "constant" or optim.decay_steps > 0


def abstract_state(
    recipe: Recipe, image_shape: tuple[int, int, int], num_seeds: int = 1
) -> TrainState:
    """Returns the shapes and dtypes of a state, on the first device; computes nothing.

    `image_shape` is that before any crop. With several seeds every array leads with
    [num_seeds].
    """
    one = jax.eval_shape(lambda: init_state(recipe, image_shape, seed=0))
    lead = () if num_seeds == 1 else (num_seeds,)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state: TrainState = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype, sharding=place),
        one,
    )
    return state


def restore(workdir: Path, like: TrainState, which: str = "latest") -> TrainState:
    """Returns the newest intact state of the run in `workdir`; changes no file.

    `like` is a state of the same network and optimiser, concrete or abstract. `which`
    is "latest", or "best" for the highest accuracy on the validation split.

    Raises:
        InputError: there is no such checkpoint, or it is of another network or run.
        RunError: no such checkpoint is intact.
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
    """Returns the state of the k-th seed, on the host, without the leading [num_seeds].

    `state` is of a run of one seed, where only k = 0 exists, or of several.

    Raises:
        InputError: the run has fewer seeds.
    """
    num_seeds = state.step.size
    if not 0 <= k < num_seeds:
        raise InputError(
            f"got replica {k}, need 0 to {num_seeds - 1}: the run is of {num_seeds}"
            " seeds; name one of them"
        )
    state = jax.device_get(state)
    return state if np.ndim(state.step) == 0 else jax.tree.map(lambda x: x[k], state)
