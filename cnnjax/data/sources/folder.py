"""A data set from a folder with one subfolder of pictures per class."""

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from cnnjax.data import cache
from cnnjax.data.cache import Copy
from cnnjax.data.dataset import MAX_BYTES, Dataset, Split, make_dataset, normal
from cnnjax.data.sources.pictures import (
    each,
    is_grey,
    is_left_behind,
    not_listed,
    read_picture,
)
from cnnjax.errors import InputError

# Side in pixels of every picture that is read: CIFAR-10's.
SIZE = 32

# Without a test folder, one picture in six of each class is a test picture, as in
# CIFAR-10.
TEST_SHARE = 6

# What the folder of each split is called, in capitals or small letters.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}

# Class -> its pictures, sorted by name.
Classes = dict[str, list[Path]]


def load(directory: Path, *, with_test: bool = True, keep: bool = False) -> Dataset:
    """Reads `train/CLASS/PICTURE` and `test/CLASS/PICTURE`, and says what it reads.

    The classes are the subfolders of `train/`, sorted by name; names that differ only
    in their Unicode normal form are one. Files that are hidden or that systems leave
    behind are left out. A folder `val/` (or `valid`, `validation`, `dev`) is the
    validation split, or without `test/` the test set.

    Without both, the pictures of `train/` (or of `CLASS/PICTURE` if there is no
    `train/` either) are split: in each class, the sixth of the pictures with the
    smallest SHA-256 of `CLASS/PICTURE` are for testing. So the split depends only on
    names. The same digest orders the pictures of a split, which mixes the classes.

    Args:
        directory: the folder, which gives the data set its name.
        with_test: whether the test pictures are opened. If not, they do not count in
            deciding whether the set is greyscale.
        keep: whether decoded pictures are kept in the user's cache, see `cache.load`.

    Returns:
        images uint8 [n, 32, 32, 3], or [n, 32, 32, 1] if every picture is greyscale.

    Raises:
        InputError: a folder is missing, empty or of an unknown split, a file is not a
            picture, or a class is not in `train/`.
    """
    try:
        root = directory.resolve()
    except (OSError, RuntimeError):  # a circle of links; which of them: the Python
        root = directory.absolute()
    if not os.path.isdir(root):
        what = "correct the path"
        if os.path.isfile(root):
            what = "unpack it if it is an archive, or name the folder that it lies in"
            if root.suffix.lower() == ".npz":
                what = "set data.source=npz and data.file to read such a file"
        raise InputError(
            f"{directory} is not a folder; data.dir needs one with"
            f" train/CLASS/PICTURE in it; {what}"
        )
    folders = _find_splits(root)
    base = folders.get("train", root)
    splits = {"train": _list_pictures(base)}
    # As they are written in train/, whatever their normal form elsewhere.
    classes = tuple(files[0].parent.name for files in splits["train"].values())
    for split in [split for split in folders if split != "train"]:
        splits[split] = _list_pictures(folders[split], known=classes)
    if "test" not in folders:
        splits["test"] = _take_test(base, splits["train"])
        if not any(splits["test"].values()):
            raise InputError(
                f"{directory} has fewer than 3 pictures in every class and no test/, so"
                " none is left to test on; add pictures or a test/ folder"
            )
    print(f"reading {_describe(root, folders, splits)}", flush=True)
    opened = {
        split: _ordered(folders.get(split, base), splits[split])
        for split in SPLITS
        if split in splits and (with_test or split != "test")
    }
    paths = tuple(path for listed in opened.values() for path in listed)
    if len(paths) * SIZE * SIZE * 3 > MAX_BYTES:
        raise InputError(
            f"{directory} has {len(paths)} pictures; at most {MAX_BYTES / 2**30:.0f}"
            f" GiB of them fit, as {SIZE}x{SIZE} pixels; use fewer"
        )
    # A file may be reached by links under other names, which decide its class.
    names = "\0".join(str(path.relative_to(root)) for path in paths)
    digest = hashlib.sha256(os.fsencode(names)).hexdigest()
    copy = Copy(
        root,
        f"pictures of {SIZE} pixels: {digest}",
        paths,
        lambda _: _read(root.name, classes, opened),
    )
    return cache.load(copy, with_test=with_test, keep=keep)


def _read(
    name: str, classes: tuple[str, ...], opened: Mapping[str, list[Path]]
) -> Dataset:
    every = [path for paths in opened.values() for path in paths]
    mode = "L" if all(each(is_grey, every)) else "RGB"
    labels = {normal(name): label for label, name in enumerate(classes)}
    channels = 1 if mode == "L" else 3

    def read(paths: list[Path]) -> Split:
        images = np.empty((len(paths), SIZE, SIZE, channels), np.uint8)
        pictures = each(partial(read_picture, size=SIZE, mode=mode), paths)
        for image, picture in zip(images, pictures, strict=True):
            image[:] = picture
        numbers = [labels[normal(path.parent.name)] for path in paths]
        return Split(images, np.array(numbers, np.int32))

    splits = {split: read(paths) for split, paths in opened.items()}
    train, test = splits["train"], splits.get("test")
    return make_dataset(name, "", train, test, classes, splits.get("validation"))


def _find_splits(root: Path) -> dict[str, Path]:
    """Returns the folder of each split; none where `root` itself holds the classes."""
    folders = [path for path in _entries(root) if os.path.isdir(path)]
    named = {
        split: [path for path in folders if path.name.lower() in names]
        for split, names in SPLITS.items()
    }

    def is_split(path: Path) -> bool:  # and no class of that name
        holds = (os.path.isdir(inner) for inner in _entries(path))
        return path.name.lower() in ("train", "test") or any(holds)

    if not any(is_split(path) for path in named["train"]):
        for path in named["test"] + named["validation"]:
            if is_split(path):
                raise InputError(
                    f"{root} has {path.name}/ but no train/; both need CLASS folders"
                    " with pictures; add train/"
                )
        for path in folders:
            inner = [entry.name for entry in _entries(path) if os.path.isdir(entry)]
            if any(name.lower() in SPLITS["train"] for name in inner):
                raise InputError(
                    f"{root} is one folder too high: {path} has {', '.join(inner)};"
                    f" set data.dir={path}"
                )
        return {}
    found: dict[str, Path] = {}
    for split, paths in named.items():
        if len(paths) > 1:
            raise InputError(
                f"{root} has {' and '.join(path.name + '/' for path in paths)}; one"
                f" folder is needed for {split}; put them together or move one"
            )
        if paths:
            found[split] = paths[0]
    others = [path.name for path in folders if path not in found.values()]
    if others:
        raise InputError(
            f"{root} has {', '.join(name + '/' for name in others)} beside"
            f" {found['train'].name}/, which is no split that is read (train/, val/,"
            " test/); move it out, or rename it if it is one of these"
        )
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    return found


def _describe(
    root: Path, folders: Mapping[str, Path], splits: Mapping[str, Classes]
) -> str:
    """Returns which split comes from where, and what is not read."""
    said = []
    for split in (split for split in SPLITS if split in splits):
        where = "class folders"
        if split in folders:
            where = f"{folders[split].name}/"
        elif split == "test":
            where = "a sixth of each class, as there is no test/"
        files = splits[split]
        count = sum(map(len, files.values()))
        said.append(f"{split} from {where} ({count} picture{'s' * (count != 1)})")
        without = [name for name in splits["train"] if not files.get(name)]
        if without and split in folders:
            said.append(f"no {split} picture of {', '.join(without)}")
    if folders and folders.get("test", root).name.lower() in SPLITS["validation"]:
        said.append(f"{folders['test'].name}/ is the test set, as there is no test/")
    beside = [path.name for path in _entries(root) if path not in folders.values()]
    if folders and beside:
        said.append(f"not used: {', '.join(beside)}")
    names = [name for names in SPLITS.values() for name in names]
    if not folders and root.name.lower() in names:
        others = [name for name in names if name != root.name.lower()]
        if any(os.path.isdir(root.parent / name) for name in others):
            said.append(f"for the splits beside it set data.dir={root.parent}")
    return f"{root}: {', '.join(said)}"


def _list_pictures(base: Path, known: tuple[str, ...] = ()) -> Classes:
    """Returns the files of each class folder of `base`, classes sorted by name.

    `known` are the classes of train/, where `base` is another split.
    """
    classes: Classes = {}
    entries = _entries(base)
    if not any(os.path.isdir(path) for path in entries):
        has = f"holds {entries[0].name} and" if entries else "has"
        raise InputError(
            f"{base} {has} no class folders; CLASS/PICTURE is needed in it; add them,"
            " or name the folder above if this is a class itself"
        )
    for folder in entries:
        if not os.path.isdir(folder):
            raise InputError(
                f"{folder} lies beside the class folders; each picture belongs into "
                f"{base}/CLASS/; move it or take it out"
            )
        files = _entries(folder)
        for path in files:
            if os.path.isdir(path):
                raise InputError(
                    f"{path} is not a picture file but a folder; {base} needs"
                    f" CLASS/PICTURE; take it out, or name {folder} if that has CLASS/"
                )
            if not os.path.isfile(path):
                raise InputError(
                    f"{path} is not a picture file that can be opened; {folder} may "
                    "hold pictures only; take it out"
                )
        if not files:
            raise InputError(
                f"{folder} is empty; each class needs a picture; add some or remove it"
            )
        if known and normal(folder.name) not in map(normal, known):
            raise InputError(
                f"{folder} is a class that train/ does not have "
                f"(it has {', '.join(known)}); add it there or remove it"
            )
        classes.setdefault(normal(folder.name), []).extend(files)
    return classes


def _entries(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if not is_left_behind(path.name)]
    except OSError as error:
        raise not_listed(folder, error) from error
    return sorted(found, key=lambda path: path.name)


def _digest(base: Path, path: Path) -> bytes:
    name = path.relative_to(base).as_posix()
    return hashlib.sha256(os.fsencode(name)).digest()


def _ordered(base: Path, classes: Classes) -> list[Path]:
    paths = [path for files in classes.values() for path in files]
    return sorted(paths, key=lambda path: _digest(base, path))


def _take_test(base: Path, classes: Classes) -> Classes:
    """Removes one picture in six, rounded, of each class, and returns those removed."""
    test = {}
    for name, files in classes.items():
        files.sort(key=lambda path: _digest(base, path))
        taken = (len(files) + TEST_SHARE // 2) // TEST_SHARE
        test[name], classes[name] = files[:taken], files[taken:]
    return test
