"""From a configuration to the objects it names, and the checks between them."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cnnjax import losses, optimizers, parallel, replicas, resident
from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Split
from cnnjax.errors import InputError
from cnnjax.models import MODELS, cifar, lenet
from cnnjax.runtime.clocks import Clocks
from cnnjax.step import LossFn
from cnnjax.updates import Recipe, StreamedUpdate, Update


def make_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """Returns the network that `config.model` describes."""
    options = {k: v for k, v in config.model.items() if k not in ("name", "dtype")}
    dtype = jnp.dtype(config.model.dtype)
    return MODELS[config.model.name](num_classes=num_classes, dtype=dtype, **options)


def make_loss(config: ConfigDict, label_smoothing: float = 0.0) -> LossFn:
    """Returns (logits, labels) -> loss of each example: the network's own."""
    if config.model.get("variant") == "1998":
        return partial(lenet.rejection_cross_entropy, j=lenet.REJECTION_J)
    return partial(losses.cross_entropy, label_smoothing=label_smoothing)


def make_recipe(config: ConfigDict, num_classes: int) -> Recipe:
    """Returns what is trained and how, from `config.model` and `config.optim`."""
    optim = config.optim
    schedule = optimizers.make_schedule(
        optim.schedule,
        learning_rate=optim.learning_rate,
        decay_steps=optim.decay_steps or max(1, config.train.steps),
        decay_rate=optim.decay_rate,
        staircase=optim.staircase,
        warmup_steps=optim.warmup_steps,
    )
    l1, l2 = optim.get("l1", 0.0), optim.get("l2", 0.0)
    tx = optimizers.make_optimizer(
        optim.name,
        schedule,
        momentum=optim.momentum,
        l1=l1,
        l2=l2,
        penalised=cifar.PENALISED,
    )
    return Recipe(
        model=make_model(config, num_classes),
        tx=tx,
        schedule=schedule,
        loss_fn=make_loss(config, optim.label_smoothing),
        eval_loss_fn=make_loss(config),
        l1=l1,
        l2=l2,
        penalised=cifar.PENALISED,
        ema_decay=optim.ema_decay,
        has_dropout=config.model.get("keep_prob", 1.0) < 1.0,
    )


def make_preprocessing(config: ConfigDict) -> Preprocessing:
    """Returns crop, distortions and normalisation, from `config.data`."""
    data = config.data
    return Preprocessing(data.crop, tuple(data.distortions), data.normalise)


def choose_mesh(config: ConfigDict) -> Mesh:
    """Returns the mesh that `config.parallel` asks for; 0 devices: as many as pay.

    Its devices share the batch, or the seeds where there are several.

    Raises:
        InputError: there are fewer devices, or they do not divide what they share.
    """
    asked, available = config.parallel.num_devices, jax.device_count()
    batch_size, num_seeds = config.train.batch_size, config.num_seeds
    try:
        if num_seeds > 1:
            num_devices = asked or replicas.choose_num_devices(num_seeds, available)
            replicas.check_divisible(num_seeds, num_devices)
        else:
            num_devices = asked or parallel.choose_num_devices(
                batch_size, available, jax.process_count()
            )
            parallel.check_divisible(batch_size, num_devices)
        return parallel.make_mesh(num_devices)
    except ValueError as error:
        raise InputError(f"parallel.num_devices={asked}: {error}") from error


def steps_may_change(config: ConfigDict) -> bool:
    """Returns whether the schedule stays what it is when `train.steps` changes."""
    optim = config.optim
    return optim.schedule == "constant" or optim.decay_steps > 0


def make_update(
    config: ConfigDict,
    recipe: Recipe,
    split: Split,
    preprocessing: Preprocessing,
    mesh: Mesh,
) -> Callable[[int, Clocks], Update]:
    """Returns (first step, clocks) -> what does the updates from there on.

    Args:
        config: the seeds, `train`, `parallel` and the pipeline's fields of `data`.
        recipe: network, loss and optimiser.
        split: the training pictures.
        preprocessing: crop, distortions and normalisation.
        mesh: the devices.
    """
    train, mode = config.train, config.parallel.mode

    def on_device(first_step: int, clocks: Clocks) -> Update:
        del first_step  # each call names its steps
        if config.num_seeds > 1:
            return replicas.make_update(
                recipe,
                split,
                preprocessing,
                seed=config.seed,
                num_seeds=config.num_seeds,
                batch_size=train.batch_size,
                steps_per_call=train.steps_per_call,
                mesh=mesh,
                clocks=clocks,
            )
        return resident.make_update(
            recipe,
            split,
            preprocessing,
            seed=config.seed,
            batch_size=train.batch_size,
            steps_per_call=train.steps_per_call,
            mesh=mesh,
            mode=mode,
            clocks=clocks,
        )

    def from_host(first_step: int, clocks: Clocks) -> Update:
        # TensorFlow takes seconds to import, and only this pipeline needs it.
        from cnnjax.data import tf_pipeline

        batches = tf_pipeline.batches(
            split,
            preprocessing,
            seed=config.seed,
            batch_size=train.batch_size,
            first_step=first_step,
            num_steps=train.steps,
            workers=config.data.workers,
            rows=parallel.own_rows(train.batch_size, mesh),
        )
        return StreamedUpdate(recipe, batches, mesh, mode, clocks)

    return on_device if config.data.pipeline == "device" else from_host
