"""Loads a data set by name, file or folder: decoded once, kept as uint8 in memory.

Each source is a file of `data.sources`. TensorFlow is imported only for a TFDS set.
"""

import dataclasses
import os
from pathlib import Path

from cnnjax.data.dataset import (
    Dataset,
    MissingDatasetError,
    Split,
    fingerprint,
    make_dataset,
)
from cnnjax.errors import InputError

EMBEDDED = ("shapes", "digits")


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
        mirror: address of a folder with the set's archives; "" for none.
        cache: whether decoded pictures are kept in the user's cache.
        on_missing: "embedded" allows a stand-in if nothing is named; "error" does not.
    """

    kind: str
    name: str = ""
    directory: str = ""
    file: str = ""
    download: bool = True
    mirror: str = ""
    cache: bool = True
    on_missing: str = "error"


def load_dataset(
    name: str,
    *,
    dir: str = "",
    download: bool = True,
    mirror: str = "",
    cache: bool = True,
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
        cache: whether decoded pictures of a TFDS set are kept in the user's cache.
        with_test: whether the test split is loaded.

    Raises:
        MissingDatasetError: the set is neither on this machine nor available.
        InputError: the arrays or files do not have the needed form.
    """
    kind = "tfds"
    if not dir:
        if name in EMBEDDED:
            kind = "embedded"
        elif name.endswith(".npz"):
            kind = "npz"
        elif name.startswith(("/", "./", "../", "~")) or os.path.isdir(name):
            kind = "folder"
    place = name if kind == "folder" else dir
    source = Source(
        kind,
        name,
        directory=place,
        file=name,
        download=download,
        mirror=mirror,
        cache=cache,
    )
    return load_source(source, default_name=name, stand_in="", with_test=with_test)


def load_source(
    source: Source, *, default_name: str, stand_in: str, with_test: bool = True
) -> Dataset:
    """Loads the data set of a source.

    If the source names one, by name, directory or file, it is that one or an error.
    Otherwise it is the TFDS set `default_name` or, if that is missing, the embedded set
    `stand_in`, under its own name. A search loads without the test split.

    Raises:
        MissingDatasetError: the set is neither on this machine nor available.
        InputError: the kind is unknown or not that of `file`, or the arrays or files
            do not have the needed form.
    """
    name, directory, file = source.name, source.directory, source.file
    if source.kind == "tfds":
        if file and not name and not directory:
            raise InputError(
                f"got data.file={file!r} and data.source=tfds, need data.source=npz to"
                " read a file; set --config.data.source=npz"
            )
        # Here and below, a source is imported when used, with the packages it needs.
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
        return npz.load(Path(os.path.expanduser(file)), with_test=with_test)
    if source.kind == "folder":
        from cnnjax.data.sources import folder

        if not directory:
            raise InputError(
                "data.dir is empty; data.source=folder needs a folder with "
                "train/CLASS/PICTURE; set data.dir"
            )
        return folder.load(Path(os.path.expanduser(directory)), with_test=with_test)
    if source.kind == "embedded":
        return load_embedded(name or stand_in, with_test=with_test)
    raise InputError(
        f"data.source is {source.kind!r}; it must be tfds, npz, folder or embedded"
    )


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
    data = embedded.shapes() if name == "shapes" else embedded.digits()
    train = Split(data.train_images, data.train_labels)
    test = Split(data.test_images, data.test_labels) if with_test else None
    return make_dataset(name, "1.0.0", train, test, data.class_names)


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
    digest = fingerprint(train, dataset.test, dataset.class_names)
    return dataclasses.replace(dataset, train=train, fingerprint=digest)


def hold_out(dataset: Dataset, val_examples: int) -> tuple[Dataset, Split]:
    """Splits off the last `val_examples` training examples for validation.

    Returns:
        the data set with the remaining training examples, and the validation split.

    Raises:
        InputError: `val_examples` is not in [0, number of training examples).
    """
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
    digest = fingerprint(train, dataset.test, dataset.class_names)
    return dataclasses.replace(dataset, train=train, fingerprint=digest), held
