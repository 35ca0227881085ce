"""Finds data sets by their TFDS names, and reads those that TFDS has prepared."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import cache
from cnnjax.data.cache import Copy
from cnnjax.data.dataset import (
    MAX_BYTES,
    Dataset,
    MissingDatasetError,
    Split,
    make_dataset,
)
from cnnjax.data.sources import cifar
from cnnjax.data.sources import download as downloading
from cnnjax.data.sources.pictures import not_listed
from cnnjax.data.sources.published import SETS
from cnnjax.data.tensorflow_import import import_tensorflow
from cnnjax.errors import InputError
from cnnjax.runtime import backend

# Number of examples that are decoded at a time.
CHUNK = 1000

BY_TFDS = "prepared by TFDS"

_NAME = re.compile(r"(\w+)(?:/(\w[\w.+-]*))?(?::(\d+\.\d+\.\d+))?", re.ASCII)


def load(
    name: str,
    directory: str,
    download: bool,
    *,
    with_test: bool = True,
    mirror: str = "",
    keep: bool = False,
) -> Dataset:
    """Loads the first whole copy of a data set on this machine, or downloads the set.

    Prepared data are read without the code that made them, so that TFDS need not know
    the set. If there is no "test" split, "validation" is used; splits that are not used
    are named. CIFAR-10 and CIFAR-100 are read in other forms too, and found in other
    places (`cifar`), unless the folder that is named is missing. Damaged copies are
    passed over, with a message, unless those of the folder that is named are all so.

    Args:
        name: `NAME`, `NAME/CONFIG`, `NAME:VERSION` or `NAME/CONFIG:VERSION`; without a
            version, the highest one is read.
        directory: data folder, made by a download; "" means that of the environment
            variable `TFDS_DATA_DIR`, which must exist, or else `~/tensorflow_datasets`.
        download: whether the network may be used.
        with_test: whether the files of the test split are opened.
        mirror: address of a folder with the set's archives, tried before the official
            one; "" for none.
        keep: whether decoded data are kept in the user's cache, see `cache.load`.

    Raises:
        MissingDatasetError: the set is neither on this machine nor available.
        InputError: the set has no `image` and `label`, its images are not uint8 or
            differ in size, or it cannot be read; or it lies above or below the folder
            that is named.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise InputError(
            f"data.name is {name!r}; TFDS names are NAME, NAME/CONFIG or NAME:VERSION, "
            "such as cifar10; correct it"
        )
    base, config, version = match.groups(default="")
    published = SETS.get(base)
    if published and (config or version not in ("", cifar.VERSION)):
        published = None
    variable = os.environ.get("TFDS_DATA_DIR", "")
    given = directory or variable or backend.home() / "tensorflow_datasets"
    root = Path(os.path.expanduser(given))
    if variable and not directory and not os.path.isdir(root):
        raise InputError(
            f"got TFDS_DATA_DIR={variable} in the environment, which is not a folder;"
            " need TFDS's data folder; make it, correct the variable or unset it"
        )
    if os.path.isfile(root):
        raise InputError(
            f"got data.dir={directory or root}, which is a file, need a folder; name"
            " the one that it lies in, or for an .npz file set data.source=npz and"
            " data.file"
        )

    def find(place: Path) -> Iterator[Copy]:
        try:
            if prepared := find_prepared(place, base, config, version):
                files = sorted(path for path in prepared.rglob("*") if path.is_file())
                yield Copy(prepared, BY_TFDS, tuple(files), partial(_read, prepared))
            if published:
                yield from cifar.copies(place, published)
        except OSError as error:
            raise not_listed(place, error) from error

    def read(copy: Copy) -> Dataset:
        print(f"reading {name} from {copy.path} ({copy.form})", flush=True)
        if copy.form == BY_TFDS:
            _say_splits(name, copy.path)
        return cache.load(copy, with_test=with_test, keep=keep)

    def first_whole(place: Path) -> Dataset | None:
        failed = None
        for copy in find(place):
            if failed:
                print(f"passed over: {failed}", flush=True)
            try:
                return read(copy)
            except InputError as error:
                failed = error
        if failed:
            raise failed
        return None

    named = directory or variable  # or else the first of the usual places
    dataset = first_whole(root) if named or not published else None
    if dataset is None and named:
        _check_not_near(name, root, "data.dir" if directory else "TFDS_DATA_DIR", find)
    if dataset is None and published:
        # In place of a folder that is named and missing, no other is taken.
        missing = directory and not os.path.isdir(root)
        for place in () if missing else cifar.usual_places():
            try:
                if dataset := first_whole(place):
                    return dataset
            except InputError as error:
                print(f"passed over: {error}", flush=True)
        if not download:
            raise MissingDatasetError(
                f"{name} is not prepared in {root} and data.download=False;"
                f" {cifar.advice(published, root)}"
            )
        return read(cifar.download(published, root, mirror))
    if dataset is None:
        downloading.prepare(name, root, download, mirror)
        dataset = first_whole(root)
    if dataset is None:
        raise InputError(
            f"TFDS prepared {name} in {root}, but not in a form that can be read; "
            "features.json and dataset_info.json are needed; remove it and try again"
        )
    return dataset


def _say_splits(name: str, prepared: Path) -> None:
    """Prints which splits are not used, or not as they are called, from metadata."""
    try:
        listed = json.loads((prepared / "dataset_info.json").read_text())["splits"]
        sizes = {
            str(split["name"]): sum(int(n) for n in split.get("shardLengths", ()))
            for split in listed
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # `_read` says what is wrong with them
    test = _test_split(sizes)
    if test == "validation":
        print(f"{name} has no test split: its validation split is the test set")
    for split, count in sizes.items():
        if split not in ("train", test):
            print(f"{name} has a split {split} of {count} pictures, which is not used")


def _test_split(splits: Iterable[str]) -> str:
    return next((split for split in ("test", "validation") if split in splits), "")


def _check_not_near(
    name: str, root: Path, named_by: str, find: Callable[[Path], Iterator[Copy]]
) -> None:
    """Raises InputError if the set lies in a folder above `root` or directly below."""
    found = None
    for place in (*Path(os.path.realpath(root)).parents[:3], *_folders(root)):
        # What lacks files, or may not be listed, is nothing to point at, and Parquet
        # files may be another project's.
        with contextlib.suppress(InputError):
            for copy in find(place):
                lacks = _lacks(copy.path) if copy.form == BY_TFDS else ""
                if not (found or lacks or copy.form == cifar.PARQUET):
                    found = place
    if found:
        raise InputError(
            f"{name} is not in {root}, which {named_by} names, but in {found}; set"
            f" {named_by} to that"
        )


def _read(prepared: Path, with_test: bool) -> Dataset:
    if lacks := _lacks(prepared):
        raise InputError(
            f"{prepared} has no {lacks}; a whole prepared set is needed; remove that"
            " folder or copy it again"
        )
    tf = import_tensorflow(datasets=True)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(prepared)
        features = dict(builder.info.features)
        splits = builder.info.splits
        sizes = {split: splits[split].num_examples for split in splits}
    # TFDS parses JSON, protobuf and class names here, each with its own exceptions.
    except Exception as error:
        raise _unreadable(prepared, error) from error
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        has = ", ".join(
            f"{key} ({type(features[key]).__name__})" for key in sorted(features)
        )
        raise InputError(
            f"{prepared} has the features {has}; image (Image) and label (ClassLabel) "
            "are needed; choose an image-classification set"
        )
    if image.np_dtype != np.uint8:
        raise InputError(
            f"{prepared} has images of {np.dtype(image.np_dtype)}; uint8 is needed; "
            "choose another set"
        )
    test = _test_split(sizes)
    if "train" not in sizes or not test:
        raise InputError(
            f"{prepared} has the splits {', '.join(sizes)}; train and test (or "
            "validation) are needed; choose another set"
        )
    if not sizes["train"] or not sizes[test]:
        raise InputError(
            f"{prepared} has {sizes['train']} training and {sizes[test]} {test} "
            "examples; at least one of each is needed; prepare it again"
        )
    try:
        train, tested = (
            _read_split(builder, split, sizes[split], prepared) if opened else None
            for split, opened in (("train", True), (test, with_test))
        )
    except tf.errors.OpError as error:
        raise _unreadable(prepared, error) from error
    names = tuple(label.names or map(str, range(label.num_classes)))
    name = "/".join(filter(None, (builder.name, builder.builder_config_name)))
    assert train is not None
    return make_dataset(name, str(builder.version), train, tested, names)


def _read_split(builder: Any, split: str, count: int, prepared: Path) -> Split:
    tf = import_tensorflow(datasets=True)
    import tensorflow_datasets as tfds

    # The files are read one after the other, so that the order of examples is fixed.
    reading = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    examples = builder.as_dataset(split=split, read_config=reading)
    # It does not need AutoGraph, which warns on Python 3.13.
    pair = tf.autograph.experimental.do_not_convert(
        lambda example: (example["image"], example["label"])
    )
    examples = examples.map(pair)
    # If the metadata give no size, images may differ in it and are read one by one.
    known = None not in builder.info.features["image"].shape
    images = np.zeros(0, np.uint8)
    labels = np.zeros(count, np.int64)
    done = 0
    for some, their_labels in examples.batch(CHUNK if known else 1).as_numpy_iterator():
        if not done:
            size = count * some[0].size
            if size > MAX_BYTES:
                raise InputError(
                    f"{prepared}: {split} takes {size / 2**30:.1f} GiB; at most "
                    f"{MAX_BYTES / 2**30:.0f} GiB fit; choose a smaller set"
                )
            images = np.zeros((count, *some.shape[1:]), np.uint8)
        if some.shape[1:] != images.shape[1:]:
            raise InputError(
                f"{prepared} has images of {images.shape[1:]} and of {some.shape[1:]} "
                "(height, width, channels); they must be of one size; choose another "
                "set, or data.source=folder, which scales them"
            )
        images[done : done + len(some)] = some
        labels[done : done + len(some)] = their_labels
        done += len(some)
    return Split(images, labels)


def _unreadable(prepared: Path, error: Exception) -> InputError:
    return InputError(
        f"{prepared} cannot be read ({downloading.one_line(error)}); a whole prepared "
        "set is needed; remove it and prepare or copy it again"
    )


_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)", re.ASCII)
_METADATA = ("features.json", "dataset_info.json")


def _lacks(prepared: Path) -> str:
    """Returns the first file of metadata that is missing; "" if none is."""
    return next((x for x in _METADATA if not (prepared / x).is_file()), "")


def find_prepared(root: Path, base: str, config: str, version: str) -> Path | None:
    """Finds the folder `root/base[/config]/version` of a prepared set, or None.

    A `config` of "" means the only one or none, a `version` of "" the highest one.

    Raises:
        InputError: there are several configurations and `config` is "".
    """
    folder = root / base / config
    versions = _versions(folder, version)
    if not versions and not config:
        configs = {
            path.name: found
            for path in _folders(folder)
            if not _VERSION.fullmatch(path.name) and (found := _versions(path, version))
        }
        if len(configs) > 1:
            raise InputError(
                f"{folder} holds the configurations {', '.join(sorted(configs))}; one "
                f"is needed; set data.name to {base}/CONFIG"
            )
        versions = next(iter(configs.values()), [])
    return versions[-1] if versions else None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise not_listed(folder, error) from error


def _versions(folder: Path, wanted: str) -> list[Path]:
    """Returns the version folders that are not empty, highest version last."""
    found = []
    for path in _folders(folder):
        match = _VERSION.fullmatch(path.name)
        if match and wanted in ("", path.name) and any(path.iterdir()):
            found.append((tuple(int(part) for part in match.groups()), path))
    return [path for _, path in sorted(found)]
