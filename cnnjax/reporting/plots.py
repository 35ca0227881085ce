"""Draws curves, class figures, pictures, filters and feature maps, each as a PNG.

matplotlib is used without windows and without its global state.
"""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from cnnjax.reporting.curves import Curve, smooth

# Distinguishable if colour-blind: Okabe and Ito, "Color Universal Design", 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":")

# Inches, and dots per inch. Text is still legible at half the width, as on a phone.
WIDTH, HEIGHT, DPI = 4.8, 3.2, 160

# A confusion matrix with more classes than this shows no class names.
MOST_NAMED = 24


@contextmanager
def figure(width: float = WIDTH, height: float = HEIGHT) -> Iterator[Figure]:
    """Yields a new figure, in whose texts "$" does not start a formula."""
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def png(figure: Figure) -> bytes:
    """Returns a figure as a PNG file."""
    file = io.BytesIO()
    # No date and no version, so that equal figures are equal bytes.
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def text(name: str, width: int) -> str:
    """Cuts any text to `width` letters and replaces letters that the font lacks."""
    has = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    shown = "".join(
        c if c.isprintable() and ord(c) in has else "\N{WHITE SQUARE}" for c in name
    )
    return (
        shown if len(shown) <= width else shown[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def curves(lines: Mapping[str, Curve], *, title: str, unit: str, scale: str) -> bytes:
    """Draws quantities over the steps, with a band of one standard deviation around.

    A curve with many points is drawn pale, with its running mean over it.

    Args:
        lines: name -> curve, at least one; after seven, the colours repeat with
            another line style.
        title: title of the figure.
        unit: label of the vertical axis.
        scale: "log" (which needs a value above zero), "from_zero" or "linear".
    """
    with figure() as drawn:
        axes = drawn.add_subplot()
        for i, (name, line) in enumerate(lines.items()):
            colour = COLOURS[i % len(COLOURS)]
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            values = line.values
            if len(values) > 60:
                if line.deviation is None:
                    axes.plot(line.steps, values, color=colour, alpha=0.2, lw=0.7)
                values = smooth(values, len(values) // 60 * 2 + 1)
            marker = "o" if len(values) <= 20 else None
            axes.plot(
                line.steps,
                values,
                style,
                color=colour,
                label=text(name, 44),
                lw=1.5,
                marker=marker,
                ms=4,
            )
            if line.deviation is not None:
                low, high = values - line.deviation, values + line.deviation
                axes.fill_between(line.steps, low, high, color=colour, alpha=0.2, lw=0)
        if scale == "log":
            axes.set_yscale("log", nonpositive="mask")
            # Plain numbers, because powers of ten would need formulas.
            shown = np.concatenate([line.values for line in lines.values()])
            positive = shown[shown > 0]
            few = positive.max() < 100 * positive.min()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif scale == "from_zero":
            highest = max(line.values.max() for line in lines.values())
            axes.set_ylim(0, 1.05 * highest or 1)
        axes.set_title(text(title, 64), fontsize=9)
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        return png(drawn)


def confusion(counts: np.ndarray, class_names: Sequence[str], *, title: str) -> bytes:
    """Draws a confusion matrix, coloured by the fraction of the true class.

    `counts` is int [classes, classes], true class by predicted class.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with figure(height=4.4) as drawn:
        axes = drawn.add_subplot()
        image = axes.imshow(fractions, cmap="cividis", vmin=0, vmax=1)
        drawn.colorbar(image, shrink=0.75, label="fraction of the true class")
        if len(class_names) <= MOST_NAMED:
            names = [text(name, 12) for name in class_names]
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
        if len(class_names) <= 12:
            for (row, column), count in np.ndenumerate(counts):
                colour = "black" if fractions[row, column] > 0.5 else "white"
                axes.text(
                    column, row, count, ha="center", va="center", color=colour, size=6
                )
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(text(title, 64), fontsize=9)
        return png(drawn)


def per_class(
    precision: np.ndarray,
    recall: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
) -> bytes:
    """Draws precision and recall of each class, float [classes] in [0, 1]."""
    places = np.arange(len(class_names))
    with figure(height=max(HEIGHT, 1.0 + 0.28 * len(class_names))) as drawn:
        axes = drawn.add_subplot()
        axes.barh(places - 0.2, precision, 0.4, color=COLOURS[0], label="precision")
        axes.barh(places + 0.2, recall, 0.4, color=COLOURS[4], label="recall")
        axes.set_yticks(places, [text(name, 16) for name in class_names], fontsize=8)
        axes.set_ylim(len(class_names) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(text(title, 64), fontsize=9)
        drawn.legend(loc="outside lower center", ncols=2, fontsize=8)
        return png(drawn)


def reliability(
    count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, *, title: str
) -> bytes:
    """Draws accuracy against confidence, and below it the number of pictures.

    The first three arguments are those of `diagnosis.Calibration`.
    """
    edges = np.linspace(0, 1, len(count) + 1)
    style = {"width": np.diff(edges), "align": "edge", "edgecolor": "white", "lw": 0.5}
    with figure(height=4.2) as drawn:
        upper, lower = drawn.subplots(2, sharex=True, height_ratios=[3, 1])
        upper.bar(edges[:-1], accuracy, color=COLOURS[0], label="accuracy", **style)
        upper.plot(
            confidence, accuracy, "o", color=COLOURS[1], ms=4, label="mean of bin"
        )
        upper.plot(
            [0, 1], [0, 1], "--", color="black", lw=1, label="as confident as right"
        )
        upper.set_ylim(0, 1)
        upper.set_ylabel("accuracy")
        upper.legend(fontsize=7, loc="upper left")
        upper.set_title(text(title, 64), fontsize=9)
        lower.bar(edges[:-1], count, color=COLOURS[5], **style)
        lower.set_xlim(0, 1)
        lower.set_ylabel("pictures")
        lower.set_xlabel("confidence")
        return png(drawn)


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
    rows = -(-len(images) // columns)
    lines = max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    height = 0.4 + rows * (WIDTH / columns * 0.95 + lines * 0.13)
    with figure(height=height) as drawn:
        grid = drawn.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image, caption in zip(grid, images, captions, strict=False):
            _show(axes, image)
            axes.set_title(caption, fontsize=6.5, pad=2)
        drawn.suptitle("\n".join(textwrap.wrap(text(title, 140), 70)), fontsize=9)
        return png(drawn)


def _show(axes: Axes, image: np.ndarray) -> None:
    scale = 255 if image.dtype == np.uint8 else 1
    colours = np.broadcast_to(np.clip(image / scale, 0, 1), (*image.shape[:2], 3))
    axes.imshow(colours, interpolation="nearest")


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
    mosaic = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels))
    empty = np.ones(mosaic.shape[:2], bool)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = image
        empty[top : top + height, left : left + width] = False
    shown = mosaic if channels == 3 else matplotlib.colormaps[cmap](mosaic[..., 0])
    shown[empty] = 1
    with figure(height=0.4 + WIDTH * rows / columns) as drawn:
        axes = drawn.add_subplot()
        axes.imshow(shown, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(text(title, 64), fontsize=9)
        return png(drawn)
