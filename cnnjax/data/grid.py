"""Many small pictures in one."""

import math

import numpy as np

GAP = 1


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Returns pictures side by side, row by row, with black lines between them.

    Args:
        images: uint8 [n, height, width, channels].
        columns: pictures a row, at least 1; the last row is filled up with black.

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
    """Returns each picture with its least value black and its greatest white.

    Args:
        values: float [n, height, width, channels]; one of a single value is black.

    Returns:
        uint8 [n, height, width, channels].
    """
    low = values.min(axis=(1, 2, 3), keepdims=True)
    span = values.max(axis=(1, 2, 3), keepdims=True) - low
    scaled = (values - low) / np.where(span > 0, span, 1)
    return np.rint(255 * scaled).astype(np.uint8)
