"""Figures of pictures, filters and feature maps, as the bytes of a PNG."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from cnnjax.reporting import plots


def pictures(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int,
    title: str,
) -> bytes:
    """Draws pictures side by side.

    Args:
        images: [height, width, 1 or 3], uint8 in [0, 255] or float, clipped to [0, 1].
        captions: one a picture, of short lines; "" for none.
        columns: pictures in a row.
        title: of the figure.
    """
    rows = -(-len(images) // columns)
    lines = max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    height = 0.4 + rows * (plots.WIDTH / columns * 0.95 + lines * 0.13)
    with plots.figure(height=height) as drawn:
        grid = drawn.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image, caption in zip(grid, images, captions, strict=False):
            _show(axes, image)
            axes.set_title(caption, fontsize=6.5, pad=2)
        drawn.suptitle("\n".join(textwrap.wrap(plots.text(title, 140), 70)), fontsize=9)
        return plots.png(drawn)


def _show(axes: Axes, image: np.ndarray) -> None:
    scale = 255 if image.dtype == np.uint8 else 1
    colours = np.broadcast_to(np.clip(image / scale, 0, 1), (*image.shape[:2], 3))
    axes.imshow(colours, interpolation="nearest")


def filters(kernel: np.ndarray, *, title: str) -> bytes:
    """Draws the kernels of a first convolution as pictures, each by its extremes.

    Args:
        kernel: float [height, width, 1 or 3, out].
        title: of the figure.
    """
    low = kernel.min(axis=(0, 1, 2))
    span = np.maximum(kernel.max(axis=(0, 1, 2)) - low, 1e-12)
    scaled = np.moveaxis((kernel - low) / span, -1, 0)
    return _tiles(scaled, title=title, cmap="gray")


def maps(values: np.ndarray, *, title: str) -> bytes:
    """Draws the feature maps of one layer, on one scale from dark to bright.

    Args:
        values: float [height, width, channels].
        title: of the figure.
    """
    span = max(float(values.max() - values.min()), 1e-12)
    scaled = np.moveaxis((values - values.min()) / span, -1, 0)[..., None]
    return _tiles(scaled, title=title, cmap="viridis")


def _tiles(images: np.ndarray, *, title: str, cmap: str) -> bytes:
    """Draws [n, height, width, 1 or 3] in [0, 1] as one mosaic, a pixel apart."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    mosaic = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels))
    empty = np.ones(mosaic.shape[:2], bool)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = image
        empty[top : top + height, left : left + width] = False
    shown = mosaic if channels == 3 else matplotlib.colormaps[cmap](mosaic[..., 0])
    shown[empty] = 1
    with plots.figure(height=0.4 + plots.WIDTH * rows / columns) as drawn:
        axes = drawn.add_subplot()
        axes.imshow(shown, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(plots.text(title, 64), fontsize=9)
        return plots.png(drawn)
