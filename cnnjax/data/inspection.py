"""Pictures side by side, and made to be seen."""

import math

import numpy as np

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
