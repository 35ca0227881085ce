"""A data set from one `.npz` file in Keras' convention."""

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from cnnjax.data.dataset import MAX_BYTES, Dataset, Split, make_dataset
from cnnjax.errors import InputError

KEYS = ("x_train", "y_train", "x_test", "y_test")

# A label beyond this number of classes is assumed to be a mistake.
MAX_CLASSES = 65_536


def load(file: Path, *, with_test: bool = True) -> Dataset:
    """Reads `x_train, y_train, x_test, y_test`, and never unpickles anything.

    The classes are 0 to the largest training label; their names are "0", "1" and so on.

    Args:
        file: images uint8 [n, height, width] or [n, height, width, channels]; labels
            of any integer type, [n] or [n, 1]. It gives the data set its name.
        with_test: whether the arrays of the test split are read.

    Raises:
        InputError: the file is missing, broken or pickled, lacks one of the arrays, or
            has an array of another shape, another dtype or more than `MAX_BYTES`.

    Source: the files of `keras.datasets`, such as mnist.npz.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            keys = KEYS if with_test else KEYS[:2]
            arrays = {key: _read(archive, key, file) for key in keys}
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
            f"{file} cannot be read ({error}); a whole .npz file is needed, as "
            "numpy.savez writes it; copy or make it again"
        ) from error
    train = _split(arrays["x_train"], arrays["y_train"])
    test = _split(arrays["x_test"], arrays["y_test"]) if with_test else None
    classes = 1
    if train.labels.size and train.labels.dtype.kind in "iu":
        classes = int(np.clip(int(train.labels.max()) + 1, 1, MAX_CLASSES))
    names = tuple(str(label) for label in range(classes))
    return make_dataset(file.stem, "", train, test, names)


def _read(archive: zipfile.ZipFile, key: str, file: Path) -> np.ndarray:
    member = f"{key}.npy"
    if member not in archive.namelist():
        held = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
        raise InputError(
            f"{file} has no array {key} (it has: {held or 'none'}); it needs "
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
    size = dtype.itemsize
    for length in shape:
        size *= length
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
