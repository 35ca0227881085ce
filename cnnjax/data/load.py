"""Loads a data set by name, file or folder: decoded once, kept as uint8 in memory.

Each source is a file of `data.sources`. TensorFlow is imported only for a TFDS set.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import (
    Dataset,
    MissingDatasetError,
    Split,
    fingerprint,
    make_dataset,
)
from cnnjax.errors import InputError

EMBEDDED = ("shapes", "digits")

# The fields of `Source` that say where a set is, of which each kind takes some.
WHERE = {"name": "name", "directory": "dir", "file": "file", "mirror": "mirror"}
TAKES = {
    "tfds": ("name", "directory", "mirror"),
    "npz": ("file",),
    "folder": ("directory",),
    "embedded": ("name",),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set comes from: the fields of `data.*` in a configuration.

    Attributes:
        kind: "tfds", "npz", "folder" or "embedded".
        name: of the set, for "tfds" (`NAME`, `NAME/CONFIG`, `NAME:VERSION`) and
            "embedded" (one of `EMBEDDED`); "" if none is named. A file or folder is
            named after itself.
        directory: for "tfds" the data dir, where "" is TFDS's own (`TFDS_DATA_DIR`,
            else `~/tensorflow_datasets`); for "folder" the folder.
        file: for "npz".
        download: whether the set may be downloaded.
        mirror: for "tfds", address of a folder with the set's archives; "" for none.
        cache: whether decoded pictures are kept in the user's cache.
        on_missing: "embedded" allows a stand-in if nothing is named; "error" does not.
        num_classes: number of classes that the set must have, of which an `.npz` file
            may lack pictures; 0 for what the data say.
    """

    kind: str
    name: str = ""
    directory: str = ""
    file: str = ""
    download: bool = True
    mirror: str = ""
    cache: bool = True
    on_missing: str = "error"
    num_classes: int = 0


def load_dataset(
    name: str | Path,
    *,
    dir: str | Path = "",
    download: bool = True,
    mirror: str = "",
    cache: bool = True,
    num_classes: int = 0,
    with_test: bool = True,
) -> Dataset:
    """Loads a data set by name, file or folder.

    Args:
        name: an embedded set ("shapes", "digits"), an `.npz` file, a folder of
            images, or the name of a TFDS set, such as "cifar10".
        dir: data folder of a TFDS set; "" for TFDS's default. With it, `name` is that
            of a TFDS set. CIFAR-10 and CIFAR-100 may lie in it in any form.
        download: whether the set may be downloaded.
        mirror: address of a folder with the set's archives, tried first.
        cache: whether decoded pictures are kept in the user's cache.
        num_classes: number of classes that the set must have; 0 for what the data say.
        with_test: whether the test split is loaded.

    Raises:
        MissingDatasetError: the set is neither on this machine nor available.
        InputError: the arrays or files do not have the needed form.

    Example:
        >>> cj.load_dataset("digits").class_names[:3]
        ('0', '1', '2')
    """
    from cnnjax.data.sources.published import SETS

    is_path = isinstance(name, Path)
    name, dir = os.fspath(name), os.fspath(dir)
    # Names of TFDS are NAME, NAME/CONFIG or NAME:VERSION.
    is_path |= name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1
    kind = "tfds"
    if not dir:
        if name in EMBEDDED and not is_path:
            kind = "embedded"
        elif name.lower().endswith(".npz"):
            kind = "npz"
        elif is_path or (os.path.exists(name) and name not in SETS):
            kind = "folder"
    source = Source(
        kind,
        name if kind in ("tfds", "embedded") else "",
        directory=name if kind == "folder" else dir,
        file=name if kind == "npz" else "",
        download=download,
        mirror=mirror,
        cache=cache,
        num_classes=num_classes,
    )
    return load_source(source, default_name=name, stand_in="", with_test=with_test)


def load_source(
    source: Source, *, default_name: str, stand_in: str, with_test: bool = True
) -> Dataset:
    """Loads the data set of a source, and says which split comes from where.

    If the source names one, by name, directory or file, it is that one or an error.
    Otherwise it is the TFDS set `default_name` or, if that is missing, the embedded set
    `stand_in`, under its own name. A search loads without the test split.

    Raises:
        MissingDatasetError: the set is neither on this machine nor available.
        InputError: the kind is unknown, the source has a field that its kind does not
            take, or the arrays or files do not have the needed form.
    """
    _check_takes(source)
    dataset = _load(source, default_name, stand_in, with_test)
    if source.num_classes not in (0, dataset.num_classes):
        raise InputError(
            f"got data.num_classes={source.num_classes}, but {dataset.name} has"
            f" {dataset.num_classes} classes; leave it out or name another set"
        )
    present = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    without = [dataset.class_names[label] for label in np.flatnonzero(present == 0)]
    if without:
        print(
            f"{dataset.name} has no training picture of {_some(without)}, of its"
            f" {dataset.num_classes} classes",
            flush=True,
        )
    return dataset


def _some(names: list[str], most: int = 10) -> str:
    more = f" and {len(names) - most} others" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def takes(kind: str, field: str) -> bool:
    """Returns whether a kind of source takes one of the fields `WHERE`."""
    return field in TAKES.get(kind, ())


def _check_takes(source: Source) -> None:
    """Refuses a field that would have no effect, as it was meant for another kind."""
    if source.kind not in TAKES:
        raise InputError(
            f"data.source is {source.kind!r}; it must be tfds, npz, folder or embedded"
        )
    for field, leaf in WHERE.items():
        value = getattr(source, field)
        if value and not takes(source.kind, field):
            kinds = [kind for kind, takes in TAKES.items() if field in takes]
            raise InputError(
                f"got data.{leaf}={value!r} and data.source={source.kind}, need"
                f" data.source={' or '.join(kinds)}, as others have no use for it; set"
                f" --config.data.source={kinds[0]} or leave data.{leaf} out"
            )


def _load(source: Source, default_name: str, stand_in: str, with_test: bool) -> Dataset:
    name, directory, file = source.name, source.directory, source.file
    # A source is imported when used, with the packages that it needs.
    if source.kind == "tfds":
        from cnnjax.data.sources import tfds

        try:
            return tfds.load(
                name or default_name,
                directory,
                source.download,
                with_test=with_test,
                mirror=source.mirror,
                keep=source.cache,
            )
        except MissingDatasetError:
            if name or directory or source.on_missing == "error":
                raise
            return load_embedded(stand_in, with_test=with_test)
    if source.kind == "npz":
        from cnnjax.data.sources import npz

        if not file:
            raise InputError(
                "data.file is empty; data.source=npz needs a .npz file with x_train, "
                "y_train, x_test, y_test; set data.file"
            )
        return npz.load(
            Path(os.path.expanduser(file)),
            with_test=with_test,
            num_classes=source.num_classes,
        )
    if source.kind == "folder":
        from cnnjax.data.sources import folder

        if not directory:
            raise InputError(
                "data.dir is empty; data.source=folder needs a folder with "
                "train/CLASS/PICTURE; set data.dir"
            )
        return folder.load(
            Path(os.path.expanduser(directory)), with_test=with_test, keep=source.cache
        )
    return load_embedded(name or stand_in, with_test=with_test)


def load_embedded(name: str, *, with_test: bool = True) -> Dataset:
    """Makes one of the sets `EMBEDDED`, which need no download.

    Raises:
        InputError: there is no such set.
    """
    from cnnjax.data.sources import embedded

    if name not in EMBEDDED:
        raise InputError(
            f"there is no embedded data set {name!r}; set data.name to "
            f"{' or '.join(EMBEDDED)}, or data.source=tfds"
        )
    made = embedded.shapes() if name == "shapes" else embedded.digits()
    train, test, class_names = made
    return make_dataset(name, "1.0.0", train, test if with_test else None, class_names)


def take_first(dataset: Dataset, train_examples: int) -> Dataset:
    """Returns the data set with only its first `train_examples` training examples.

    Raises:
        InputError: `train_examples` is not in [1, number of training examples].
    """
    count = len(dataset.train.labels)
    if not 0 < train_examples <= count:
        raise InputError(
            f"got data.train_examples={train_examples}, need 1 to {count}, as many as"
            f" {dataset.name} has to train on; or 0 for all"
        )
    images, labels = dataset.train.images, dataset.train.labels
    train = Split(images[:train_examples], labels[:train_examples])
    return _with_train(dataset, train)


def _with_train(dataset: Dataset, train: Split) -> Dataset:
    names, validation = dataset.class_names, dataset.validation
    digest = fingerprint(train, dataset.test, names, validation)
    return dataclasses.replace(dataset, train=train, fingerprint=digest)


def hold_out(dataset: Dataset, val_examples: int) -> tuple[Dataset, Split]:
    """Splits off the last `val_examples` training examples for validation.

    Returns:
        the data set with the remaining training examples, and the validation split.

    Raises:
        InputError: `val_examples` is not in [0, number of training examples), or the
            data set has a validation split of its own.
    """
    if val_examples and dataset.validation is not None:
        raise InputError(
            f"got data.val_examples={val_examples}, but {dataset.name} has a validation"
            f" split of its own, of {len(dataset.validation.labels)} pictures, which is"
            " used; leave data.val_examples out"
        )
    count = len(dataset.train.labels)
    if not 0 <= val_examples < count:
        raise InputError(
            f"data.val_examples is {val_examples}; {dataset.name} has {count} training "
            f"examples, of which at least one must be left; set it to 0..{count - 1}"
        )
    kept = count - val_examples
    train = Split(dataset.train.images[:kept], dataset.train.labels[:kept])
    held = Split(dataset.train.images[kept:], dataset.train.labels[kept:])
    if not val_examples:
        return dataset, held
    return _with_train(dataset, train), held
