"""A data set from one `.npz` file in Keras' convention."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from cnnjax.data.dataset import MAX_BYTES, MAX_CLASSES, Dataset, Split, make_dataset
from cnnjax.errors import InputError, one_line

KEYS = ("x_train", "y_train", "x_test", "y_test")

# What the arrays of a validation split are called, after `x_` and `y_`.
VALIDATION = ("val", "valid", "validation", "dev")

# More classes without a training picture are no accident: the labels are others.
MAX_MISSING = 3


def load(file: Path, *, with_test: bool = True, num_classes: int = 0) -> Dataset:
    """Reads `x_train, y_train, x_test, y_test`, and never unpickles anything.

    `x_val` and `y_val` (or `valid`, `validation`, `dev`) are the validation split, or
    the test set where there is no `x_test`. Other arrays are named and left out, but
    for further splits, which are refused. The names of the classes are "0", "1" and so
    on, up to the largest training label.

    Args:
        file: images uint8 [n, height, width] or [n, height, width, channels]; labels
            of any integer type, [n] or [n, 1]. It gives the data set its name.
        with_test: whether the arrays of the test split are read.
        num_classes: number of classes; 0 for the largest training label plus 1, if at
            most `MAX_MISSING` of these have no training picture.

    Raises:
        InputError: the file is missing, broken or pickled, lacks one of the arrays, or
            has an array of another shape, another dtype or more than `MAX_BYTES`; or
            too many classes have no picture.

    Source: the files of `keras.datasets`, such as mnist.npz.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            parts = _parts(held, file)
            splits = {
                split: _split(*(_read(archive, f"{a}_{part}", file) for a in "xy"))
                for split, part in parts.items()
                if with_test or split != "test"
            }
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(
            f"{file} does not exist; data.file needs a .npz file with "
            f"{', '.join(KEYS)}; correct the path"
        ) from None
    # A broken file fails in zipfile, zlib or NumPy, each with its own exceptions.
    except Exception as error:
        raise InputError(
            f"{file} cannot be read ({_reason(file, error)}); a whole .npz file is "
            "needed, as numpy.savez writes it; copy or make it again"
        ) from error
    said = [
        f"{split} from x_{parts[split]} ({len(found.images)} pictures)"
        for split, found in splits.items()
    ]
    if parts["test"] != "test":
        said.append(f"x_{parts['test']} is the test set, as there is no x_test")
    unused = [name for name in held if name[:2] not in ("x_", "y_")]
    if unused:
        said.append(f"not used: {', '.join(unused)}")
    print(f"reading {file}: {', '.join(said)}", flush=True)
    classes = num_classes or _count_classes(file, splits["train"].labels)
    return make_dataset(
        file.stem,
        "",
        splits["train"],
        splits.get("test"),
        tuple(map(str, range(classes))),
        splits.get("validation"),
    )


def _parts(held: list[str], file: Path) -> dict[str, str]:
    """Returns which part of the arrays each split is, such as {"validation": "val"}."""
    present = {name[2:] for name in held if name[:2] in ("x_", "y_")}
    own = [part for part in VALIDATION if part in present]
    others = sorted(present - {"train", "test", *own[:1]})
    if others:
        raise InputError(
            f"{file} has x_{others[0]} or y_{others[0]}, of a split that is not known;"
            " train, test and one of validation are read; rename or leave them out"
        )
    if not own:
        return {"train": "train", "test": "test"}
    if "test" not in present:
        return {"train": "train", "test": own[0]}
    return {"train": "train", "validation": own[0], "test": "test"}


def _count_classes(file: Path, labels: np.ndarray) -> int:
    if not labels.size or labels.dtype.kind not in "iu" or labels.ndim != 1:
        return 1  # `make_dataset` says what is wrong with them
    classes = int(np.clip(int(labels.max()) + 1, 1, MAX_CLASSES))
    missing = np.setdiff1d(np.arange(classes), labels)
    if labels.min() >= 0 and labels.max() < classes and len(missing) > MAX_MISSING:
        raise InputError(
            f"{file}: the training labels are of {classes - len(missing)} kinds from"
            f" {labels.min()} to {labels.max()}, so that {len(missing)} of {classes}"
            f" classes have no picture ({', '.join(map(str, missing[:3]))}, ...); need"
            " labels 0, 1, 2, ...; number them so, or set --config.data.num_classes="
            f"{classes} if the rest is meant to be empty"
        )
    return classes


def _reason(file: Path, error: Exception) -> str:
    try:
        with file.open("rb") as opened:
            start = opened.read(6)
    except OSError:
        start = b""
    if start == np.lib.format.MAGIC_PREFIX:
        return "it is a single array, a .npy file"
    return one_line(error)


def _read(archive: zipfile.ZipFile, key: str, file: Path) -> np.ndarray:
    member = f"{key}.npy"
    if member not in archive.namelist():
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        has = ", ".join(held[:10]) + (", ..." if len(held) > 10 else "")
        raise InputError(
            f"{file} has no array {key} (it has: {has or 'none'}); it needs "
            f"{', '.join(KEYS)}; save it with these names"
        )
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
    # The header is checked before any memory is allocated for the array.
    if dtype.hasobject:
        raise InputError(
            f"{file}: {key} is a pickled array of objects, which is never loaded; a "
            "plain array of numbers is needed; save it as uint8 or integers"
        )
    size = math.prod(shape, start=dtype.itemsize)
    if size > archive.getinfo(member).file_size:
        raise InputError(
            f"{file}: {key} is truncated: {dtype} {list(shape)} takes {size} bytes, "
            f"{archive.getinfo(member).file_size} are there; copy or make it again"
        )
    if size > MAX_BYTES:
        raise InputError(
            f"{file}: {key} is {dtype} {list(shape)}, {size / 2**30:.1f} GiB; at most "
            f"{MAX_BYTES / 2**30:.0f} GiB fit; use fewer or smaller images"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return shape, dtype


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return Split(images, labels)
