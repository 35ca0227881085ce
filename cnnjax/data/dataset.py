"""Data sets in memory: checked arrays, class names and a fingerprint."""

import dataclasses
import hashlib

import numpy as np

from cnnjax.errors import InputError

# The largest split accepted: far above any data set for these networks, and below what
# a forged file header could claim.
MAX_BYTES = 16 * 2**30


class MissingDatasetError(InputError):
    """The data set is neither on this machine nor available elsewhere."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 [n, height, width, channels] in [0, 255], C-contiguous.
        labels: int32 [n], indices into the data set's `class_names`.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set for image classification, in memory.

    Attributes:
        name: labels the results.
        version: of TFDS; for a file or folder, the start of the fingerprint.
        train: the training split.
        test: the test split; empty if it was not loaded.
        class_names: one per class, in the order of the labels.
        fingerprint: SHA-256 (hex) of the content, see `fingerprint`.
    """

    name: str
    version: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def make_dataset(
    name: str,
    version: str,
    train: Split,
    test: Split | None,
    class_names: tuple[str, ...],
) -> Dataset:
    """Checks the arrays of a source, converts them to one form and fingerprints them.

    Images are uint8 [n, height, width, channels], labels of any integer type [n]. A
    `version` of "" becomes the first 12 digits of the fingerprint, and a `test` of
    None, which was not loaded, an empty split.

    Raises:
        InputError: an array has another type or shape, a split is empty, a label is
            out of range, or the splits differ in image size.
    """
    train = _checked(f"{name}, train", train, len(class_names))
    if test is None:
        test = Split(train.images[:0], train.labels[:0])
    else:
        test = _checked(f"{name}, test", test, len(class_names))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise InputError(
            f"{name}: training images are {train.images.shape[1:]}, test images "
            f"{test.images.shape[1:]} (height, width, channels); make them the same"
        )
    digest = fingerprint(train, test, class_names)
    return Dataset(name, version or digest[:12], train, test, class_names, digest)


def fingerprint(train: Split, test: Split, class_names: tuple[str, ...]) -> str:
    """Returns the SHA-256 (hex) of both splits and the class names.

    It covers each array's dtype, shape and bytes (little-endian), in the order training
    images, training labels, test images, test labels, and then the names.
    """
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{array.dtype.name} {array.shape}\n".encode())
        digest.update(array.data)
    digest.update(repr(tuple(class_names)).encode())
    return digest.hexdigest()


def _checked(what: str, split: Split, num_classes: int) -> Split:
    images, labels = split.images, split.labels
    if images.ndim != 4 or images.dtype != np.uint8:
        raise InputError(
            f"{what}: images are {images.dtype} {list(images.shape)}; uint8 "
            "[n, height, width, channels] is needed; convert them"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{what}: labels are {labels.dtype} {list(labels.shape)}; integers [n] are "
            "needed; convert them"
        )
    if len(images) != len(labels):
        raise InputError(
            f"{what}: there are {len(images)} images and {len(labels)} labels; each "
            "image needs one label; make them match"
        )
    if not images.size:
        raise InputError(
            f"{what}: images are {list(images.shape)}, which holds no pixel; at least "
            "one example is needed; check how the set was made"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"{what}: labels lie in [{labels.min()}, {labels.max()}], out of range for "
            f"{num_classes} classes, which need 0..{num_classes - 1}; correct them"
        )
    return Split(np.ascontiguousarray(images), labels.astype(np.int32))
