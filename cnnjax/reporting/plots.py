"""Draws curves and the figures of classes as SVG.

matplotlib is used without windows and without its global state.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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
    PercentFormatter,
    StrMethodFormatter,
)

from cnnjax.reporting.curves import Curve, smooth
from cnnjax.reporting.numbers import wilson

# What is drawn in this colour has the colour of the text where the SVG is shown.
INK = "#010203"

# Distinguishable if colour-blind: Okabe and Ito, "Color Universal Design", 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
STYLES = ("-", "--", ":")
STYLE = (
    f"svg{{color:#1b1f24;--blue:{COLOURS[0]}}}"
    "@media(prefers-color-scheme:dark){svg{color:#e3e6ea;--blue:#3d9de0}}"
)

# Inches, and dots per inch. Text is still legible as wide as a phone.
WIDTH, HEIGHT, DPI = 4.8, 3.2, 160

# With more classes than this, figures show no class names.
MOST_NAMED = 24


@contextmanager
def figure(width: float = WIDTH, height: float = HEIGHT) -> Iterator[Figure]:
    """Yields a new figure, in whose texts "$" does not start a formula."""
    with matplotlib.rc_context(
        {
            "text.parse_math": False,
            "font.size": 9,
            "axes.titlesize": 9.5,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "grid.alpha": 0.2,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "grid.color": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "image.composite_image": False,  # which would be a blurred one
            "svg.hashsalt": "cnnjax",  # equal figures are equal bytes
        }
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def png(figure: Figure) -> bytes:
    """Returns a figure on white as a PNG file."""
    file = io.BytesIO()
    # No date and no version, so that equal figures are equal bytes.
    software = {"Software": None}
    figure.savefig(file, format="png", dpi=DPI, facecolor="white", metadata=software)
    return file.getvalue()


def svg(figure: Figure) -> bytes:
    """Returns a figure as an SVG file, black on light pages and white on dark ones."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    # The darkest of the colours is brighter on a dark page.
    drawn = file.getvalue().replace(INK, "currentColor")
    drawn = drawn.replace(COLOURS[0].lower(), "var(--blue)")
    return drawn.replace('<style type="text/css">', f"<style>{STYLE}", 1).encode()


def text(name: str, width: int) -> str:
    """Cuts any text to `width` letters and replaces letters that the font lacks."""
    has = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    shown = "".join(
        c if c.isprintable() and ord(c) in has else "\N{WHITE SQUARE}" for c in name
    )
    cut = shown[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return shown if len(shown) <= width else cut


def curves(lines: Mapping[str, Curve], *, title: str, unit: str, scale: str) -> bytes:
    """Draws quantities over the steps, with a band of one standard deviation around.

    A curve with many points is drawn pale, with its running mean over it. A single
    point is a dot, with an error bar where its deviation is known.

    Args:
        lines: name -> curve, at least one; after seven, the colours repeat with
            another line style.
        title: title of the figure.
        unit: label of the vertical axis; "fraction" is shown in percent.
        scale: "log" (which needs a value above zero), "from_zero" or "linear".
    """
    with figure() as drawn:
        axes = drawn.add_subplot()
        for i, (name, line) in enumerate(lines.items()):
            colour = COLOURS[i % len(COLOURS)]
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            values, deviation, name = line.values, line.deviation, text(name, 44)
            if len(values) == 1:
                axes.errorbar(
                    line.steps, values, deviation, fmt="D", color=colour, label=name
                )
                continue
            if len(values) > 60:
                width = len(values) // 30 * 2 + 1
                if deviation is None:
                    axes.plot(line.steps, values, color=colour, alpha=0.25, lw=0.7)
                else:
                    deviation = smooth(deviation, width)
                values = smooth(values, width)
            (one,) = axes.plot(line.steps, values, style, color=colour, label=name)
            one.set(marker="o" if len(values) <= 20 else "", markersize=4)
            if deviation is not None:
                low, high = values - deviation, values + deviation
                axes.fill_between(line.steps, low, high, color=colour, alpha=0.2, lw=0)
        if scale == "log":
            axes.set_yscale("log", nonpositive="mask")
            # Plain numbers, because powers of ten would need formulas.
            shown = np.concatenate([line.values for line in lines.values()])
            positive = shown[shown > 0]
            few = positive.max() < 100 * positive.min()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif scale == "from_zero":
            axes.set_ylim(0, axes.get_ylim()[1])
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        if unit == "fraction":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        else:
            axes.set_ylabel(unit)
        axes.set_title(text(title, 64))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        _open(axes)
        axes.legend()
        return svg(drawn)


def _open(axes: Axes) -> None:
    axes.grid(True)
    axes.spines[["top", "right"]].set_visible(False)


def intervals(
    fractions: Mapping[str, tuple[float, float, float]], *, title: str
) -> bytes:
    """Draws name -> (middle, low, high), one below the other, as dots and bars."""
    with figure(height=1.0 + 0.3 * len(fractions)) as drawn:
        axes = drawn.add_subplot()
        for i, (middle, low, high) in enumerate(fractions.values()):
            bar = [[middle - low], [high - middle]]
            colour = COLOURS[i % len(COLOURS)]
            axes.errorbar(middle, i, xerr=bar, fmt="D", color=colour, capsize=3)
        axes.set_yticks(range(len(fractions)), [text(name, 28) for name in fractions])
        axes.set_ylim(len(fractions) - 0.5, -0.5)
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        _open(axes)
        axes.set_title(text(title, 64))
        return svg(drawn)


def confusion(counts: np.ndarray, class_names: Sequence[str], *, title: str) -> bytes:
    """Draws a confusion matrix, coloured by the root of the true class's fraction.

    The root, because otherwise few mistakes could not be seen. `counts` is int
    [classes, classes], true class by predicted class.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with figure(height=WIDTH) as drawn:
        axes = drawn.add_subplot()
        blue = np.full(counts.shape, 0.85)[..., None] * [0, 0.447, 0.698, 1]
        blue[..., :3] /= 0.85
        blue[..., 3] *= np.sqrt(fractions)
        axes.imshow(blue, interpolation="none")
        if len(class_names) <= MOST_NAMED:
            names = [text(name, 12) for name in class_names]
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
        if len(class_names) <= 12:
            for (row, column), count in np.ndenumerate(counts):
                shown = f"{count:,}" if count else ""
                axes.text(column, row, shown, ha="center", va="center", size=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(text(title, 64))
        return svg(drawn)


def per_class(
    figures: Mapping[str, tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    *,
    title: str,
) -> bytes:
    """Draws fractions of each class, such as precision and recall, with error bars.

    `figures` are name -> (right, of how many), both int [classes].
    """
    with figure(height=max(HEIGHT, 1.0 + 0.3 * len(class_names))) as drawn:
        axes = drawn.add_subplot()
        for i, (name, (right, count)) in enumerate(figures.items()):
            # A class that is never predicted has no precision.
            values = np.where(count, right / np.maximum(count, 1), np.nan)
            places = np.arange(len(class_names)) + (i - 0.5) * 0.36
            error, dot = _error(values, right, count), "Do"[i % 2]
            axes.errorbar(
                values, places, xerr=error, fmt=dot, ms=4, color=COLOURS[i], label=name
            )
        axes.set_yticks(range(len(class_names)), [text(n, 16) for n in class_names])
        axes.set_ylim(len(class_names) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        _open(axes)
        axes.set_title(text(title, 64))
        drawn.legend(loc="outside lower center", ncols=2)
        return svg(drawn)


def _error(values: np.ndarray, right: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Returns how far the 95% intervals of fractions reach down and up, [2, n]."""
    low, high = wilson(right, count)
    return np.maximum([values - low, high - values], 0)


def reliability(
    count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, *, title: str
) -> bytes:
    """Draws accuracy with error bars against confidence, and the number of pictures.

    The first three arguments are those of `diagnosis.Calibration`.
    """
    edges = np.linspace(0, 1, len(count) + 1)
    style: dict[str, Any] = {"width": np.diff(edges), "align": "edge"}
    some = count > 0
    right = np.rint(np.where(some, accuracy, 0) * count)
    error = _error(accuracy[some], right[some], count[some])
    with figure(height=4.2) as drawn:
        upper, lower = drawn.subplots(2, sharex=True, height_ratios=[3, 1])
        upper.bar(edges[:-1], accuracy, color=(COLOURS[0], 0.35), **style)
        upper.errorbar(
            confidence[some], accuracy[some], error, fmt="o", color=COLOURS[0], ms=4
        )
        upper.plot([0, 1], [0, 1], "--", color=INK, lw=1, label="as confident as right")
        upper.set_ylim(0, 1)
        upper.set_ylabel("accuracy")
        upper.legend(loc="upper left")
        upper.set_title(text(title, 64))
        lower.bar(edges[:-1], count, color=COLOURS[5], **style)
        lower.set_xlim(0, 1)
        lower.set_ylabel("pictures")
        lower.set_xlabel("confidence")
        lower.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        for axes in (upper, lower):
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            _open(axes)
        upper.yaxis.set_major_formatter(PercentFormatter(1))
        return svg(drawn)
