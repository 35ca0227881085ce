"""A data set from a folder with one subfolder of pictures per class."""

import hashlib
import os
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Dataset, Split, make_dataset
from cnnjax.data.sources.pictures import is_grey, read_picture
from cnnjax.errors import InputError

# Side in pixels of every picture that is read: CIFAR-10's.
SIZE = 32

# Without a test folder, one picture in six of each class is a test picture, as in
# CIFAR-10.
TEST_SHARE = 6


def load(directory: Path, *, with_test: bool = True) -> Dataset:
    """Reads `train/CLASS/PICTURE` and `test/CLASS/PICTURE`.

    The classes are the subfolders of `train/`, sorted by name. Hidden files are left
    out. Without `test/`, the pictures of `train/` (or of `CLASS/PICTURE` if there is
    no `train/` either) are split: in each class, the sixth of the pictures with the
    smallest SHA-256 of `CLASS/PICTURE` are for testing. So the split depends only on
    names. The same digest orders the pictures of a split, which mixes the classes.

    Args:
        directory: the folder, which gives the data set its name.
        with_test: whether the test pictures are opened. If not, they do not count in
            deciding whether the set is greyscale.

    Returns:
        images uint8 [n, 32, 32, 3], or [n, 32, 32, 1] if every picture is greyscale.

    Raises:
        InputError: a folder is missing or empty, a file is not a picture, or a class of
            `test/` is not in `train/`.
    """
    root = directory.resolve()
    if not root.is_dir():
        raise InputError(
            f"{directory} is not a folder; data.dir needs one with train/CLASS/PICTURE "
            "in it; correct the path"
        )
    has_test = (root / "test").is_dir()
    if has_test and not (root / "train").is_dir():
        raise InputError(
            f"{directory} has test/ but no train/; both need CLASS folders with "
            "pictures; add train/"
        )
    base = root / "train" if (root / "train").is_dir() else root
    train = _list_pictures(base)
    classes = tuple(train)
    test = _list_pictures(root / "test") if has_test else _take_test(base, train)
    unknown = sorted(set(test) - set(classes))
    if unknown:
        raise InputError(
            f"{root / 'test' / unknown[0]} is a class that train/ does not have "
            f"(it has {', '.join(classes)}); add it there or remove it"
        )
    train_paths = _ordered(base, train)
    test_paths = _ordered(root / "test" if has_test else base, test)
    if not test_paths:
        raise InputError(
            f"{directory} has fewer than 3 pictures in every class and no test/, so "
            "none is left to test on; add pictures or a test/ folder"
        )
    opened = train_paths + (test_paths if with_test else [])
    mode = "L" if all(is_grey(path) for path in opened) else "RGB"

    def read(paths: list[Path]) -> Split:
        return Split(
            np.stack([read_picture(path, SIZE, mode) for path in paths]),
            np.array([classes.index(path.parent.name) for path in paths], np.int32),
        )

    test_split = read(test_paths) if with_test else None
    return make_dataset(root.name, "", read(train_paths), test_split, classes)


def _list_pictures(base: Path) -> dict[str, list[Path]]:
    """Returns the files of each class folder of `base`, classes sorted by name."""
    classes = {}
    for folder in _entries(base):
        if not folder.is_dir():
            raise InputError(
                f"{folder} lies beside the class folders; each picture belongs into "
                f"{base}/CLASS/; move it or take it out"
            )
        classes[folder.name] = files = _entries(folder)
        for path in files:
            if not path.is_file():
                raise InputError(
                    f"{path} is not a picture file; {folder} may hold pictures only; "
                    "take it out"
                )
        if not files:
            raise InputError(
                f"{folder} is empty; each class needs a picture; add some or remove it"
            )
    if not classes:
        raise InputError(
            f"{base} has no class folders; CLASS/PICTURE is needed in it; add them"
        )
    return classes


def _entries(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed ({error.strerror}); it must be readable; "
            "change its permissions"
        ) from error
    return sorted(found, key=lambda path: path.name)


def _digest(base: Path, path: Path) -> bytes:
    name = path.relative_to(base).as_posix()
    return hashlib.sha256(os.fsencode(name)).digest()


def _ordered(base: Path, classes: dict[str, list[Path]]) -> list[Path]:
    paths = [path for files in classes.values() for path in files]
    return sorted(paths, key=lambda path: _digest(base, path))


def _take_test(base: Path, classes: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Removes one picture in six, rounded, of each class, and returns those removed."""
    test = {}
    for name, files in classes.items():
        files.sort(key=lambda path: _digest(base, path))
        taken = (len(files) + TEST_SHARE // 2) // TEST_SHARE
        test[name], classes[name] = files[:taken], files[taken:]
    return test
