"""The data set that a configuration names, and whether the two fit."""

import contextlib
import sys
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from cnnjax.data import load as datasets
from cnnjax.data.load import Dataset, Split
from cnnjax.errors import InputError


def load_data(
    config: ConfigDict, *, default_name: str, fallback: str, with_test: bool = True
) -> Dataset:
    """Returns the data set that `config.data` names, or the embedded `fallback`.

    Args:
        config: its `data`, and what must fit it.
        default_name: see `data.load.load_dataset`, and so for the others.
        fallback: as there.
        with_test: as there.

    Raises:
        InputError: it is missing or bad, or its pictures do not fit the configuration.
    """
    data = config.data
    dataset = datasets.load_dataset(
        source=data.source,
        name=data.name,
        directory=data.dir,
        file=data.file,
        download=data.download,
        on_missing=data.on_missing,
        default_name=default_name,
        fallback=fallback,
        with_test=with_test,
    )
    height, width, channels = dataset.image_shape
    if channels not in (1, 3):
        raise InputError(
            f"got pictures of {channels} channels in {dataset.name}, need grey ones (1)"
            " or RGB (3); convert them"
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
    return dataset


def load_data_of_run(config: ConfigDict, trained_on: str) -> Dataset:
    """Returns what `config` names, or what its run was trained on; nothing else.

    Args:
        config: of a run, perhaps with other data.
        trained_on: the name of what it was trained on.

    Raises:
        InputError: as `load_data`.
    """
    config = config.copy_and_resolve_references()
    data = config.data
    if data.source == "tfds" and not (data.name or data.dir or data.file):
        if trained_on in datasets.EMBEDDED:  # they had to stand in
            data.source = "embedded"
        else:
            data.on_missing = "error"
    return load_data(config, default_name=trained_on, fallback=trained_on)


@contextlib.contextmanager
def fitting(config: ConfigDict, dataset: Dataset) -> Iterator[None]:
    """Says in one line that a network cannot take pictures, where that shows within.

    Args:
        config: of the network.
        dataset: of the pictures.

    Raises:
        InputError: in place of a ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise InputError(
            f"{config.model.name} does not fit {dataset.name}: {error}"
        ) from error


def split(config: ConfigDict, dataset: Dataset) -> tuple[Dataset, Split | None]:
    """Returns the data set with what is trained on, and what is held out of it.

    Classes of which nothing is left to train on are named on standard error.

    Args:
        config: `data.val_examples`, `data.train_examples` and `train.batch_size`.
        dataset: from `load_data`.

    Raises:
        InputError: there are fewer pictures.
    """
    validation, classes = None, np.unique(dataset.train.labels)
    if config.data.val_examples:
        dataset, validation = datasets.hold_out(dataset, config.data.val_examples)
    if config.data.train_examples:
        dataset = datasets.take_first(dataset, config.data.train_examples)
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


def embedded_note(config: ConfigDict, dataset: Dataset, default_name: str) -> str:
    """Returns what to say where an embedded set stands in unasked; else "".

    Args:
        config: its `data`.
        dataset: what was loaded for it.
        default_name: of the set where the configuration names none.
    """
    if config.data.source == "embedded" or config.data.name or config.data.dir:
        return ""
    if dataset.name == default_name or config.data.source != "tfds":
        return ""
    why = "cannot be downloaded"
    if not config.data.download:
        why = "data.download=False forbids to download it"
    return (
        f"{default_name} is not on this machine and {why}: this run uses"
        f" the embedded data set '{dataset.name}', and its accuracy says nothing about"
        f" {default_name}"
    )
