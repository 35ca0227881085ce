"""From a configuration to a run: the objects it names, and the checks between them."""

import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cnnjax import losses, optimizers, parallel, runs, training
from cnnjax.data import datasets
from cnnjax.data.augment import Preprocessing
from cnnjax.data.datasets import Dataset, Split
from cnnjax.errors import InputError
from cnnjax.models import MODELS, cifar, lenet, summary
from cnnjax.reporting import writer
from cnnjax.step import LossFn


def make_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """Returns the network that `config.model` describes."""
    options = {k: v for k, v in config.model.items() if k not in ("name", "dtype")}
    dtype = jnp.dtype(config.model.dtype)
    return MODELS[config.model.name](num_classes=num_classes, dtype=dtype, **options)


def make_loss(config: ConfigDict) -> LossFn:
    """Returns (logits, labels) -> loss of each example: the network's own."""
    if config.model.get("variant") == "1998":
        return partial(lenet.rejection_cross_entropy, j=lenet.REJECTION_J)
    smoothing = config.optim.label_smoothing
    return partial(losses.cross_entropy, label_smoothing=smoothing)


def make_recipe(config: ConfigDict, num_classes: int) -> training.Recipe:
    """Returns what is trained and how, from `config.model` and `config.optim`."""
    optim = config.optim
    schedule = optimizers.make_schedule(
        optim.schedule,
        learning_rate=optim.learning_rate,
        decay_steps=optim.decay_steps or max(1, config.train.steps),
        decay_rate=optim.decay_rate,
        staircase=optim.staircase,
    )
    l2 = optim.get("l2", 0.0)
    tx = optimizers.make_optimizer(
        optim.name,
        schedule,
        momentum=optim.momentum,
        l2=l2,
        penalised=cifar.PENALISED,
    )
    return training.Recipe(
        model=make_model(config, num_classes),
        tx=tx,
        schedule=schedule,
        loss_fn=make_loss(config),
        l2=l2,
        penalised=cifar.PENALISED,
        ema_decay=optim.ema_decay,
        has_dropout=config.model.get("keep_prob", 1.0) < 1.0,
    )


def make_preprocessing(config: ConfigDict) -> Preprocessing:
    """Returns crop, distortions and normalisation, from `config.data`."""
    data = config.data
    return Preprocessing(data.crop, tuple(data.distortions), data.normalise)


def load_data(config: ConfigDict, *, default_name: str, fallback: str) -> Dataset:
    """Returns the data set that `config.data` names, or the embedded `fallback`.

    Raises:
        InputError: it is missing or bad, or its pictures do not fit the configuration.
    """
    data = config.data
    dataset = datasets.load(
        source=data.source,
        name=data.name,
        directory=data.dir,
        file=data.file,
        download=data.download,
        on_missing=data.on_missing,
        default_name=default_name,
        fallback=fallback,
    )
    height, width, _ = dataset.image_shape
    if data.crop > min(height, width):
        raise InputError(
            f"got data.crop={data.crop}, need at most {min(height, width)}: the"
            f" pictures of {dataset.name} are {height}x{width}"
        )
    return dataset


def choose_mesh(config: ConfigDict) -> Mesh:
    """Returns the mesh that `config.parallel` asks for; 0 devices: as many as pay."""
    batch_size, asked = config.train.batch_size, config.parallel.num_devices
    num_devices = asked or parallel.choose_num_devices(batch_size, jax.device_count())
    try:
        parallel.check_divisible(batch_size, num_devices)
        return parallel.make_mesh(num_devices)
    except ValueError as error:
        raise InputError(f"parallel.num_devices={asked}: {error}") from error


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    default_name: str,
    fallback: str,
) -> None:
    """Trains and evaluates what `config` describes, in `workdir`; prints as it goes.

    Args:
        config: validated.
        workdir: a new folder, or that of a run of the same configuration.
        default_name: of the data set where the configuration names none.
        fallback: the embedded data set for where that one is not to be had.
    """
    stored = runs.flatten(config.to_dict())
    finished = runs.finished(workdir, stored)
    if finished is not None:
        print(f"{workdir} is finished")
        _print_summary(finished, config.eval.top_k)
        return
    dataset = load_data(config, default_name=default_name, fallback=fallback)
    note = _embedded_note(config, dataset, default_name)
    if note:
        print(note, flush=True)
    validation = None
    if config.data.val_examples:
        dataset, validation = datasets.hold_out(dataset, config.data.val_examples)
    if config.train.batch_size > len(dataset.train.labels):
        raise InputError(
            f"got train.batch_size={config.train.batch_size}, need at most"
            f" {len(dataset.train.labels)}, the training pictures of {dataset.name}"
        )
    mesh = choose_mesh(config)
    recipe = make_recipe(config, dataset.num_classes)
    preprocessing = make_preprocessing(config)
    _print_setup(config, recipe.model, dataset, preprocessing, mesh)
    runs.check_same_data(workdir, dataset.fingerprint, dataset.name)
    with runs.open_run(
        workdir, config.to_dict(), steps_may_change=_steps_may_change(config)
    ):
        runs.write_json(
            workdir / runs.MANIFEST,
            runs.manifest(
                mesh,
                mode=config.parallel.mode,
                dataset=dataset.name,
                fingerprint=dataset.fingerprint,
            ),
        )
        final = training.train_and_evaluate(
            recipe,
            dataset,
            _make_batches(config, dataset.train, preprocessing),
            validation=validation,
            preprocessing=preprocessing,
            cadence=training.Cadence(
                steps=config.train.steps,
                log_every=config.train.log_every,
                eval_every=config.train.eval_every,
                checkpoint_every=config.train.checkpoint_every,
            ),
            eval_batch_size=config.eval.batch_size,
            top_k=config.eval.top_k,
            seed=config.seed,
            batch_size=config.train.batch_size,
            mesh=mesh,
            mode=config.parallel.mode,
            workdir=workdir,
        )
        runs.write_json(workdir / runs.FINAL_METRICS, final)
    _print_summary(final, config.eval.top_k)
    if note:
        print(note, flush=True)


def default_workdir(config_name: str) -> Path:
    """Returns `runs/<config>-<date-time>`, in the current folder."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{config_name}-{now}"


def _steps_may_change(config: ConfigDict) -> bool:
    optim = config.optim
    return optim.schedule == "constant" or optim.decay_steps > 0


def _make_batches(
    config: ConfigDict, split: Split, preprocessing: Preprocessing
) -> Callable[[int], training.Batches]:
    # TensorFlow takes seconds to import, and only this pipeline needs it.
    from cnnjax.data import tf_pipeline

    def make_batches(first_step: int) -> training.Batches:
        return tf_pipeline.batches(
            split,
            preprocessing,
            seed=config.seed,
            batch_size=config.train.batch_size,
            first_step=first_step,
            num_steps=config.train.steps,
            workers=config.data.workers,
        )

    return make_batches


def _embedded_note(config: ConfigDict, dataset: Dataset, default_name: str) -> str:
    if config.data.source == "embedded" or config.data.name or config.data.dir:
        return ""
    if dataset.name == default_name or config.data.source != "tfds":
        return ""
    return (
        f"{default_name} is not on this machine and cannot be downloaded: this run uses"
        f" the embedded data set '{dataset.name}', and its accuracy says nothing about"
        f" {default_name}"
    )


def _print_setup(
    config: ConfigDict,
    model: nn.Module,
    dataset: Dataset,
    preprocessing: Preprocessing,
    mesh: Mesh,
) -> None:
    shape = preprocessing.output_shape(dataset.image_shape)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        params: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    except ValueError as error:
        raise InputError(
            f"{config.model.name} does not fit {dataset.name}: {error}"
        ) from error
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(summary.table(summary.layers(model, shape), total))
    print(
        f"data: {dataset.name} {dataset.version}, {dataset.num_classes} classes,"
        f" {len(dataset.train.labels)} training and {len(dataset.test.labels)} test"
        " pictures"
    )
    batch_size = config.train.batch_size
    print(
        f"devices: {mesh.size} x {mesh.devices.flat[0].device_kind}"
        f" ({config.parallel.mode}), {batch_size // mesh.size} of the {batch_size}"
        " pictures of a batch on each",
        flush=True,
    )


def _print_summary(final: dict[str, Any], top_k: int) -> None:
    for prefix in ("test", "test_ema"):
        if f"{prefix}/accuracy" in final:
            print(writer.precision_line(final, prefix, final["dataset"], top_k))
    print(
        f"{final['steps']} steps in {final['train_seconds']:.1f} s"
        f" ({final['perf/examples_per_sec']:.1f} examples/sec), compiled in"
        f" {final['compile_seconds']:.1f} s",
        flush=True,
    )
