"""Data sets in memory: checked arrays, class names and a fingerprint."""

import dataclasses
import hashlib
import unicodedata

import numpy as np

from cnnjax.errors import InputError

# The largest split accepted: far above any data set for these networks, and below what
# a forged file header could claim.
MAX_BYTES = 16 * 2**30

# A label beyond this number of classes is assumed to be a mistake.
MAX_CLASSES = 65_536


class MissingDatasetError(InputError):
    """The data set is neither on this machine nor available elsewhere."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 [n, height, width, channels] in [0, 255], C-contiguous.
        labels: int32 [n], indices into the data set's `class_names`.

    Example:
        >>> digits = cj.load_dataset("digits")
        >>> first = cj.Split(digits.train.images[:50], digits.train.labels[:50])
        >>> first.images.shape
        (50, 28, 28, 1)
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
        validation: the set's own validation split; None if it has none.

    Example:
        >>> data = cj.load_dataset("digits")
        >>> data.name, data.num_classes, data.image_shape, len(data.test.labels)
        ('digits', 10, (28, 28, 1), 296)
    """

    name: str
    version: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    validation: Split | None = None

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
    validation: Split | None = None,
) -> Dataset:
    """Checks the arrays of a source, converts them to one form and fingerprints them.

    Images are uint8 [n, height, width, channels], labels of any integer type [n]. A
    `version` of "" becomes the first 12 digits of the fingerprint, and a `test` of
    None, which was not loaded, an empty split.

    Raises:
        InputError: an array has another type or shape, a split is empty, a label is
            out of range, or the splits differ in image size.
    """
    train = checked(f"{name}, train", train, len(class_names))
    made = {"test": test, "validation": validation}
    for part, split in made.items():
        if split is None:
            continue
        made[part] = split = checked(f"{name}, {part}", split, len(class_names))
        if train.images.shape[1:] != split.images.shape[1:]:
            raise InputError(
                f"{name}: training images are {train.images.shape[1:]}, {part} images "
                f"{split.images.shape[1:]} (height, width, channels); make them the "
                "same"
            )
    test = made["test"] or Split(train.images[:0], train.labels[:0])
    validation = made["validation"]
    digest = fingerprint(train, test, class_names, validation)
    return Dataset(
        name, version or digest[:12], train, test, class_names, digest, validation
    )


def fingerprint(
    train: Split,
    test: Split,
    class_names: tuple[str, ...],
    validation: Split | None = None,
) -> str:
    """Returns the SHA-256 (hex) of all splits and the class names.

    It covers each array's dtype, shape and bytes (little-endian), in the order training
    images, training labels, test images, test labels, then the names, and last the
    images and labels of a validation split of the set's own, where there is one.
    """
    digest = hashlib.sha256()

    def add(split: Split) -> None:
        for array in (split.images, split.labels):
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(f"{array.dtype.name} {array.shape}\n".encode())
            digest.update(array.data)

    add(train)
    add(test)
    digest.update(repr(tuple(class_names)).encode())
    if validation is not None:
        add(validation)
    return digest.hexdigest()


def normal(class_name: str) -> str:
    """Returns a name in the Unicode normal form in which equal letters are equal.

    Systems differ in the form of the names of files.
    """
    return unicodedata.normalize("NFC", class_name)


def checked(what: str, split: Split, num_classes: int | None = None) -> Split:
    """Returns a split with its arrays in one form; `what` names it in messages.

    Raises:
        InputError: it is no `Split`, an array has another type or shape, there is no
            example, or a label is negative or not less than `num_classes`.
    """
    if not isinstance(split, Split):
        raise InputError(
            f"{what}: got a {type(split).__name__}, need a Split, such as data.train"
        )
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise InputError(
            f"{what}: images are {images.dtype} {list(images.shape)}; uint8 "
            f"[n, height, width, channels] is needed; {_how_to_convert(images)}"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        how = "number the classes 0, 1, 2, ..."
        if labels.ndim == 2:
            how = "of one column per class, store labels.argmax(axis=1)"
        elif labels.dtype.kind == "f" and np.array_equal(labels, labels.round()):
            how = "store labels.astype(int)"
        raise InputError(
            f"{what}: labels are {labels.dtype} {list(labels.shape)}; integers [n] are "
            f"needed; {how}"
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
    classes = MAX_CLASSES if num_classes is None else num_classes
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"{what}: labels lie in [{labels.min()}, {labels.max()}], out of range for "
            f"{classes} classes, which need 0..{classes - 1}; correct them"
        )
    return Split(np.ascontiguousarray(images), labels.astype(np.int32))


def _how_to_convert(images: np.ndarray) -> str:
    if images.dtype == np.uint8:
        return "reshape them"
    if images.dtype == bool:
        return "store 255 * images.astype(np.uint8)"
    if not images.size or images.dtype.kind not in "fiu":
        return "convert them"
    low, high = images.min(), images.max()
    whole = "images" if images.dtype.kind != "f" else "images.round()"
    if low >= 0 and high <= 1:
        return "of values in [0, 1], store (255 * images).round().astype(np.uint8)"
    if low >= 0 and high <= 255:
        return f"store {whole}.astype(np.uint8)"
    return f"their values lie in [{low:.4g}, {high:.4g}]; scale them to [0, 255]"
