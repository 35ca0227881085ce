"""Pictures side by side: those of each class, or of any array."""

import math

import numpy as np

from cnnjax.data.dataset import Dataset
from cnnjax.errors import InputError

PICTURES_A_CLASS = 10


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
