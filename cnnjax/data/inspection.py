"""Inspects a data set: statistics of its pixels, repeated pictures, picture grids."""

import dataclasses
import hashlib
import math

import numpy as np

from cnnjax.data.dataset import Dataset, Split
from cnnjax.errors import InputError

PICTURES_A_CLASS = 10


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Counts of pictures that equal another one in every pixel.

    Attributes:
        within_train: training pictures that repeat an earlier training picture.
        within_test: test pictures that repeat an earlier test picture.
        across: test pictures that are also training pictures.
        across_mislabelled: those whose label none of these training pictures has.
    """

    within_train: int
    within_test: int
    across: int
    across_mislabelled: int


def mean_and_deviation(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the standard deviation of each channel's pixels.

    mean = sum_v v n[v] / sum_v n[v]; deviation = sqrt(sum_v (v - mean)^2 n[v] / sum n),
    where n[v] is the number of pixels with value v, so that the sums are exact.

    Args:
        images: uint8 [n, height, width, channels].

    Returns:
        two arrays float64 [channels], in [0, 255].
    """
    channels = np.moveaxis(images, -1, 0)
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in channels])
    values, total = np.arange(256.0), counts.sum(axis=1)
    mean = counts @ values / total
    offsets = values - mean[:, None]
    return mean, np.sqrt((counts * offsets**2).sum(axis=1) / total)


def repeats(train: Split, test: Split) -> Repeats:
    """Counts repeated pictures, which it recognises by the SHA-256 of their pixels."""
    train_digests, test_digests = _digests(train), _digests(test)
    labels: dict[bytes, set[int]] = {}
    for digest, label in zip(train_digests, train.labels, strict=True):
        labels.setdefault(digest, set()).add(int(label))
    shared = [
        int(label) in labels[digest]
        for digest, label in zip(test_digests, test.labels, strict=True)
        if digest in labels
    ]
    return Repeats(
        within_train=len(train_digests) - len(labels),
        within_test=len(test_digests) - len(set(test_digests)),
        across=len(shared),
        across_mislabelled=shared.count(False),
    )


def _digests(split: Split) -> list[bytes]:
    return [hashlib.sha256(image.data).digest() for image in split.images]


def class_grid(dataset: Dataset) -> np.ndarray:
    """Returns the first ten training pictures of each class, one row per class.

    Returns:
        one picture, uint8 [height, width, channels].

    Raises:
        InputError: the pictures do not have 1, 3 or 4 channels, as a PNG needs.
    """
    height, width, channels = dataset.image_shape
    if channels not in (1, 3, 4):
        raise InputError(
            f"{dataset.name} has pictures of {channels} channels; a PNG has 1, 3 or 4;"
            " leave --grid out"
        )
    shape = (dataset.num_classes, PICTURES_A_CLASS, height, width, channels)
    rows = np.zeros(shape, np.uint8)
    for label, row in enumerate(rows):
        these = np.flatnonzero(dataset.train.labels == label)[:PICTURES_A_CLASS]
        row[: len(these)] = dataset.train.images[these]
    return grid(rows.reshape(-1, height, width, channels), PICTURES_A_CLASS)


GAP = 1


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Returns pictures side by side, row by row, with black lines between them.

    `images` is uint8 [n, height, width, channels]. The rest of the last row is black.

    Returns:
        uint8 [rows * (height + 1) - 1, columns * (width + 1) - 1, channels].
    """
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    tiles = np.zeros((rows * columns, height + GAP, width + GAP, channels), np.uint8)
    tiles[:count, :height, :width] = images
    tiles = tiles.reshape(rows, columns, height + GAP, width + GAP, channels)
    whole = tiles.swapaxes(1, 2).reshape(
        rows * (height + GAP), columns * (width + GAP), channels
    )
    return whole[:-GAP, :-GAP]


def stretch(values: np.ndarray) -> np.ndarray:
    """Scales each picture so that its smallest value is black and its largest white.

    It maps float [n, height, width, channels] to uint8. A constant picture is black.
    """
    low = values.min(axis=(1, 2, 3), keepdims=True)
    span = values.max(axis=(1, 2, 3), keepdims=True) - low
    scaled = (values - low) / np.where(span > 0, span, 1)
    return np.rint(255 * scaled).astype(np.uint8)
