"""Draws networks, pictures, filters and feature maps as SVG."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np

from cnnjax.reporting.plots import COLOURS, INK, WIDTH, figure, svg, text

# Of the drawing of a network: how many layers it has room for, and the distance of rows
# in widths of a column.
MOST_BOXES, PITCH = 48, 1.5

# Of its column, a picture among others takes so much.
SHARE = 0.93


def network(layers: Sequence[tuple[str, tuple[int, ...]]], *, title: str) -> bytes:
    """Draws a network's layers as boxes, in rows: name and output shape of an example.

    The face of a box is in proportion to height and width; its depth, and the height of
    a vector, to the logarithm of the number of channels.
    """
    layers = layers[:MOST_BOXES]
    sizes = ["\N{MULTIPLICATION SIGN}".join(map(str, shape)) for _, shape in layers]
    side = max(max(shape[:-1], default=1) for _, shape in layers)
    most = np.log2(1 + max(shape[-1] for _, shape in layers))
    rows = -(-len(layers) // (6 if max(map(len, sizes)) < 10 else 5))
    per_row = -(-len(layers) // rows)
    with figure(height=0.3 + 1.35 * rows) as drawn:
        axes = drawn.add_subplot()
        for i, (name, shape) in enumerate(layers):
            column, line = i % per_row, -PITCH * (i // per_row)
            deep = np.log2(1 + shape[-1]) / most
            if len(shape) > 1:
                colour = COLOURS[0] if i else "#8a8f98"
                tall = max(0.03, 0.62 * shape[0] / side)
                wide, tilt = 0.42 * deep, 0.3 * tall
            else:
                colour, tall, wide, tilt = COLOURS[4], 0.8 * deep, 0.09, 0.03
            front = [(0, 0), (wide, 0), (wide, tall), (0, tall)]
            back = np.add(front, tilt)
            above, right = [*front[2:], *back[[3, 2]]], [*front[1:3], *back[[2, 1]]]
            # The middle of every box lies on one line.
            corner = column - (wide + tilt) / 2, line - (tall + tilt) / 2
            for alpha, face in ((0.85, front), (0.55, above), (0.7, right)):
                places = np.add(face, corner).T
                axes.fill(*places, fc=(colour, alpha), ec=INK, lw=0.4)
            if column:
                end, start = (column - 0.38, line), (column - 0.6, line)
                arrow = {"arrowstyle": "->", "color": INK}
                axes.annotate("", end, start, arrowprops=arrow)
            words = [*(text(part, 11) for part in name.split("/")[-2:]), sizes[i]]
            below = axes.text(column, line - 0.47, "\n".join(words), fontsize=8.5)
            below.set(ha="center", va="top")
        axes.set_xlim(-0.5, per_row - 0.5)
        axes.set_ylim(PITCH * (1 - rows) - 0.95, 0.5)
        axes.set_axis_off()
        axes.set_title(text(title, 64))
        return svg(drawn)


def pictures(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int,
    title: str,
) -> bytes:
    """Draws pictures side by side, each with a caption of short lines, or "".

    A picture is [height, width, 1 or 3], uint8 in [0, 255] or float, which is clipped
    to [0, 1].
    """
    # In widths of a column, of which an image takes `SHARE`.
    caption = 0.035 * columns * max(1 + words.count("\n") for words in captions)
    tall = max(SHARE * image.shape[0] / image.shape[1] for image in images)
    pitch = caption + tall + 0.05
    rows = -(-len(images) // columns)
    with figure(height=0.45 + WIDTH * rows * pitch / columns) as drawn:
        axes = drawn.add_subplot()
        for i, (image, words) in enumerate(zip(images, captions, strict=True)):
            left, top = i % columns, pitch * (i // columns) + caption
            scale = 255 if image.dtype == np.uint8 else 1
            colours = np.clip(image / scale, 0, 1) * np.ones(3)
            ends = (left, left + SHARE, top + SHARE * len(image) / image.shape[1], top)
            axes.imshow(colours, interpolation="none", extent=ends)
            middle = left + SHARE / 2
            axes.text(middle, top - 0.02, words, ha="center", va="bottom", size=8.5)
        axes.set_xlim(0, columns - 1 + SHARE)
        axes.set_ylim(rows * pitch, 0)
        axes.set_axis_off()
        axes.set_title("\n".join(textwrap.wrap(text(title, 140), 60)))
        return svg(drawn)


def filters(kernel: np.ndarray, *, title: str) -> bytes:
    """Draws filters [height, width, 1 or 3, out], each scaled by its own extremes."""
    low = kernel.min(axis=(0, 1, 2))
    span = np.maximum(kernel.max(axis=(0, 1, 2)) - low, 1e-12)
    scaled = np.moveaxis((kernel - low) / span, -1, 0)
    return _tiles(scaled, title=title, cmap="gray")


def maps(values: np.ndarray, *, title: str) -> bytes:
    """Draws feature maps [height, width, channels], all on one scale (dark is low)."""
    span = max(float(values.max() - values.min()), 1e-12)
    scaled = np.moveaxis((values - values.min()) / span, -1, 0)[..., None]
    return _tiles(scaled, title=title, cmap="viridis")


def _tiles(images: np.ndarray, *, title: str, cmap: str) -> bytes:
    """Draws [n, height, width, 1 or 3] in [0, 1] as a mosaic with gaps of one pixel."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    mosaic = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4))
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        grey = matplotlib.colormaps[cmap](image[..., 0])
        shown = grey if channels == 1 else np.dstack([image, np.ones((height, width))])
        mosaic[top : top + height, left : left + width] = shown
    with figure(height=0.4 + WIDTH * rows / columns) as drawn:
        axes = drawn.add_subplot()
        axes.imshow(mosaic, interpolation="none")
        axes.set_axis_off()
        axes.set_title(text(title, 64))
        return svg(drawn)
