"""Loads the network and the data set that a configuration names; checks their fit."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cnnjax import config as configs
from cnnjax.data import load
from cnnjax.data.dataset import Dataset, Split, normal
from cnnjax.errors import InputError, one_line, raised_at
from cnnjax.models import MODELS
from cnnjax.models.facts import facts_of
from cnnjax.workdir import files


def make_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """Returns the network that `config.model` describes.

    Raises:
        InputError: its class does not take these fields.
    """
    options = {k: v for k, v in config.model.items() if k != "name"}
    options |= {"dtype": jnp.dtype(config.model.dtype), "num_classes": num_classes}
    network = MODELS[config.model.name]
    takes = {field.name for field in dataclasses.fields(network)}
    try:
        return network(**{k: v for k, v in options.items() if k in takes})
    except Exception as error:  # The class may be a user's and raise anything.
        raise InputError(
            f"{config.model.name} cannot be made: {type(error).__name__}:"
            f" {one_line(error)}{raised_at(error, network.__module__)}; need a class"
            " whose fields have defaults, but for num_classes and dtype"
        ) from error


def load_data(
    config: ConfigDict,
    *,
    default_name: str = "",
    stand_in: str = "",
    with_test: bool = True,
) -> Dataset:
    """Returns the data set that `config.data` names, or the embedded stand-in.

    If the configuration names none, it is `default_name`, or the embedded set
    `stand_in` where that one is missing; "" takes those that the network's class names.

    Raises:
        InputError: it is missing or bad, or its images do not fit the configuration.
    """
    data = config.data
    facts = facts_of(make_model(config, num_classes=2))
    dataset = load.load_source(
        load.Source(
            kind=data.source,
            name=data.name,
            directory=data.dir,
            file=data.file,
            download=data.download,
            mirror=data.mirror,
            cache=data.cache,
            on_missing=data.on_missing,
            num_classes=data.num_classes,
        ),
        default_name=default_name or facts.dataset,
        stand_in=stand_in or facts.stand_in,
        with_test=with_test,
    )
    check_data(config, dataset)
    return dataset


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises InputError if a data set's pictures or classes do not fit `config`."""
    data = config.data
    height, width, channels = dataset.image_shape
    if channels not in (1, 3):
        raise InputError(
            f"got pictures of {channels} channels in {dataset.name}, need grey ones (1)"
            " or RGB (3) as [height, width, channels]; "
            + ("move the channels last" if height in (1, 3) else "convert them")
        )
    if dataset.num_classes < 2:
        raise InputError(
            f"{dataset.name} has one class ({dataset.class_names[0]}), need two at"
            " least to tell apart; add another class"
        )
    if data.crop > min(height, width):
        raise InputError(
            f"got data.crop={data.crop}, need at most {min(height, width)}: the"
            f" pictures of {dataset.name} are {height}x{width}"
        )
    if config.eval.views > 1 and not 0 < data.crop < min(height, width):
        raise InputError(
            f"got eval.views={config.eval.views} with data.crop={data.crop}, need a"
            f" crop smaller than the {height}x{width} pictures of {dataset.name};"
            " set --config.data.crop=... or --config.eval.views=1"
        )
    if config.eval.top_k >= dataset.num_classes:
        raise InputError(
            f"got eval.top_k={config.eval.top_k}, need less than the"
            f" {dataset.num_classes} classes of {dataset.name}, or all is right"
        )


def load_data_of(config: ConfigDict, workdir: Path) -> Dataset:
    """Returns the data set that a configuration names, or that its run was trained on.

    `config` is the configuration of the run in `workdir`, perhaps with other data.

    Raises:
        InputError: as `load_data`; or the data have other classes than the run.
    """
    trained = files.trained_on(workdir)
    config = config.copy_and_resolve_references()
    data = config.data
    if (workdir / files.CONFIG).exists():
        own = configs.flatten(files.read_json(workdir / files.CONFIG))
        for field, leaf in load.WHERE.items():
            # Of the run's own source, where another is asked for now.
            if own.get(f"data.{leaf}") == data[leaf] and not load.takes(
                data.source, field
            ):
                data[leaf] = ""
    if data.source == "tfds" and not (data.name or data.dir or data.file):
        if trained["name"] in load.EMBEDDED:  # as the stand-in
            data.source = "embedded"
        else:
            data.on_missing = "error"
    name = trained["name"]
    dataset = load_data(config, default_name=name, stand_in=name)
    classes = [normal(name) for name in dataset.class_names]
    if classes != [normal(name) for name in trained["classes"]]:
        raise InputError(
            f"got {dataset.name} with the classes {', '.join(dataset.class_names)},"
            f" need those of {name}, which {workdir} was trained on:"
            f" {', '.join(trained['classes'])}; name such a data set"
        )
    return dataset


def hold_out(config: ConfigDict, dataset: Dataset) -> tuple[Dataset, Split | None]:
    """Returns the data set with the training examples to use, and the validation split.

    That is what the configuration holds out, or else the data set's own, if any.
    Classes without any remaining training image are named on standard error.

    Raises:
        InputError: there are fewer images than the configuration needs, it holds
            images out though the data set has a validation split, or there is neither
            that nor a test split.
    """
    validation, classes = dataset.validation, np.unique(dataset.train.labels)
    if config.data.val_examples:
        dataset, validation = load.hold_out(dataset, config.data.val_examples)
    if validation is None and not len(dataset.test.labels):
        raise InputError(
            f"got data.val_examples=0, need a validation split, as the test set is not"
            f" loaded and {dataset.name} has no other (a validation split without a"
            " test split is the test set); set --config.data.val_examples=..."
        )
    if config.data.train_examples:
        dataset = load.take_first(dataset, config.data.train_examples)
    left_out = np.setdiff1d(classes, dataset.train.labels)
    if len(left_out):
        names = ", ".join(dataset.class_names[label] for label in left_out)
        print(
            f"warning: no picture of {names} is left to train on; shuffle"
            f" {dataset.name} if it is sorted by class",
            file=sys.stderr,
        )
    if config.train.batch_size > len(dataset.train.labels):
        raise InputError(
            f"got train.batch_size={config.train.batch_size}, need at most"
            f" {len(dataset.train.labels)}, the training pictures of {dataset.name}"
        )
    return dataset, validation


def embedded_note(config: ConfigDict, dataset: Dataset, default_name: str = "") -> str:
    """Returns the note for a run whose embedded data set nobody asked for; else "".

    `dataset` was loaded for `config`; `default_name` is as for `load_data`.
    """
    data, facts = config.data, facts_of(make_model(config, num_classes=2))
    wanted = default_name or facts.dataset
    named = data.source != "tfds" or data.name or data.dir
    if named or dataset.name == wanted:
        return ""
    why = "cannot be downloaded"
    if not data.download:
        why = "data.download=False forbids to download it"
    return (
        f"{wanted} is not on this machine and {why}: this run uses"
        f" the embedded data set '{dataset.name}', and its accuracy says nothing about"
        f" {wanted}; python experiments/inspect_data.py says where to get it"
    )


@contextlib.contextmanager
def fitting(config: ConfigDict, dataset: str) -> Iterator[None]:
    """Raises InputError, saying that the network does not fit, for a ValueError."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f"{config.model.name} does not fit {dataset}: {error}"
        ) from error
