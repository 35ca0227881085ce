"""Decoded data sets, kept as plain arrays in the user's cache folder."""

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Dataset, Split, make_dataset
from cnnjax.errors import InputError
from cnnjax.runtime.backend import user_cache

# All entries together; CIFAR-10 takes 184 MB. The least recently used ones go first.
MAX_CACHE_BYTES = 4 * 2**30

# Part of every key: to be raised when a source decodes the same files differently.
FORM = 1

ABOUT = "about.json"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# Only of a set with a validation split of its own.
VALIDATION = ("validation_images", "validation_labels")


@dataclasses.dataclass(frozen=True)
class Copy:
    """A copy of a data set on this machine, found but not yet read.

    Attributes:
        path: its folder or file.
        form: such as "prepared by TFDS".
        files: every file that decides what `read` returns.
        read: (with_test) -> the data set, or InputError if the copy is not whole.
    """

    path: Path
    form: str
    files: tuple[Path, ...]
    read: Callable[[bool], Dataset]


def load(copy: Copy, *, with_test: bool, keep: bool) -> Dataset:
    """Returns the data set of a copy, from the cache if the copy was read before.

    An entry's key covers the path, size and times of each of `copy.files`, and its
    content is verified by the data set's fingerprint; an entry that is damaged is made
    again. Entries are read into memory: a mapped file that another process cuts short
    would end this one. Whatever prevents writing the cache is no error.

    Args:
        copy: what to read.
        with_test: whether the test split is needed.
        keep: False neither reads nor writes the cache.

    Raises:
        InputError: as `copy.read`.
    """
    if not keep:
        return copy.read(with_test)
    key = _key(copy, with_test)
    entry = user_cache() / "data" / key
    # NumPy reads the header of an array as Python, and raises what that raises.
    with contextlib.suppress(Exception):
        return _read(entry)
    shutil.rmtree(entry, ignore_errors=True)
    dataset = copy.read(with_test)
    if _key(copy, with_test) == key:  # the files did not change while they were read
        with contextlib.suppress(OSError):
            _write(entry, dataset)
    return dataset


def _key(copy: Copy, with_test: bool) -> str:
    files = []
    for path in copy.files:
        with contextlib.suppress(OSError):  # `copy.read` says what is wrong with it
            found = path.stat()
            times = found.st_mtime_ns, found.st_ctime_ns
            files.append([str(path.resolve()), found.st_size, *times])
    return _digest([FORM, with_test, str(copy.path), copy.form, files])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(entry: Path) -> Dataset:
    about = json.loads((entry / ABOUT).read_text())
    images, labels, test_images, test_labels = (
        np.load(entry / f"{name}.npy") for name in ARRAYS
    )
    test = Split(test_images, test_labels) if len(test_labels) else None
    validation = None
    if (entry / f"{VALIDATION[0]}.npy").exists():
        validation = Split(*(np.load(entry / f"{name}.npy") for name in VALIDATION))
    dataset = make_dataset(
        about["name"],
        about["version"],
        Split(images, labels),
        test,
        tuple(about["class_names"]),
        validation,
    )
    if about != _about(dataset):
        raise InputError(f"{entry} is damaged; remove it")
    with contextlib.suppress(OSError):  # another user's may be read, but not changed
        os.utime(entry)  # the time of its last use
    return dataset


def _about(dataset: Dataset) -> dict[str, object]:
    """Returns what an entry holds besides arrays; `check` covers all of it."""
    about: dict[str, object] = {
        "name": dataset.name,
        "version": dataset.version,
        "class_names": list(dataset.class_names),
        "fingerprint": dataset.fingerprint,
    }
    return about | {"check": _digest(about)}


def _write(entry: Path, dataset: Dataset) -> None:
    splits, names = [dataset.train, dataset.test], list(ARRAYS)
    if dataset.validation is not None:
        splits.append(dataset.validation)
        names += VALIDATION
    arrays = [array for split in splits for array in (split.images, split.labels)]
    if sum(array.nbytes for array in arrays) > MAX_CACHE_BYTES:
        return
    entry.parent.mkdir(parents=True, exist_ok=True)
    made = entry.with_name(f"{entry.name}.{secrets.token_hex(8)}")
    made.mkdir()
    try:
        for name, array in zip(names, arrays, strict=True):
            np.save(made / f"{name}.npy", array)
        (made / ABOUT).write_text(json.dumps(_about(dataset)))
        made.rename(entry)  # fails if another process was first, whose entry is as good
    finally:
        shutil.rmtree(made, ignore_errors=True)
    _drop_oldest(entry)


def _drop_oldest(newest: Path) -> None:
    """Removes entries, and what killed processes left, until all fit the bound."""
    room = MAX_CACHE_BYTES
    others = [path for path in newest.parent.glob("*/") if path != newest]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in (newest, *others):
        room -= sum(file.stat().st_size for file in path.iterdir())
        if room < 0:
            shutil.rmtree(path, ignore_errors=True)
