"""Shows the claims: a table on the console and in Markdown, and a chart."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from chapter import checks
from cnnjax.reporting import plots
from cnnjax.workdir import files

# The table of claims in a Markdown file lies between these marks.
BEGIN, END = "<!-- claims: begin -->", "<!-- claims: end -->"
COLOURS = {
    checks.HOLDS: "#009E73",
    checks.FAILS: "#D55E00",
    checks.OTHER_DATA: "#56B4E9",
    checks.UNTOLD: "#777777",
    checks.UNLEARNED: "#CC79A7",
    checks.TOO_SHORT: "#BBBBBB",
}
# The chart's scale is linear up to so many widths of a band from its middle.
LINEAR = 1.5
# A terminal of fewer columns has no room for all columns of the table.
NARROW = 120


def number(value: float, unit: str, *, signed: bool = False) -> str:
    """Formats a figure for display: "99.13%", "+0.42 points", "1,068,298"."""
    sign = "+" if signed else ""
    if unit in ("%", "points"):
        text = f"{100 * value:{sign}.2f}"
        return f"{text}%" if unit == "%" else f"{text} points"
    shape = ",.0f" if abs(value) >= 100 else ".3g"
    return f"{value:{sign}{shape}}" + (f" {unit}" if unit else "")


def figure(check: Mapping[str, Any]) -> str:
    """Formats a check's mean, standard deviation and interval."""
    unit, mean = check["unit"], check["mean"]
    signed = unit == "points"
    text = number(mean, unit, signed=signed)
    if check.get("std") is None or len(check["values"]) < 2:
        return text
    low, high = (_bare(end, unit, signed=signed) for end in check["interval"])
    return f"{text} ± {_bare(check['std'], unit)} [{low}, {high}]"


def _bare(value: float, unit: str, *, signed: bool = False) -> str:
    return number(value, unit, signed=signed).removesuffix(unit).rstrip()


def band(ends: Sequence[Any], unit: str) -> str:
    """Formats the band that was stated before measuring, [low, high or None]."""
    low, high = ends
    if high is None:
        return f"> {_bare(low, unit) if low else 0}"
    if low == high:
        return number(low, unit)
    return f"{_bare(low, unit)} to {number(high, unit)}"


def verdict(check: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Formats a check's verdict, and what it would take where there is none."""
    known, needs = check["verdict"], check.get("needs", {})
    if known == checks.UNTOLD:
        known = f"cannot be told at n = {len(check['values'])}"
    if "steps" in needs:
        return f"{known}; {needs['steps']:,} would do"
    if "dataset" in needs:
        return f"{known}; {needs['dataset']} would do"
    if "seeds" in needs and needs["seeds"] is None:
        return f"{known}; the mean lies at an end of the band"
    if "seeds" in needs:
        unit = "seeds" if row["steps"] else "rounds"
        return f"{known}; about {_rounded_up(needs['seeds']):,} {unit} would tell"
    return str(known)


def _rounded_up(count: int) -> int:
    """Returns a count rounded up to two digits: it comes from an estimate."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / unit) * unit


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns one table line per check; only a claim's first line names the claim."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        for i, check in enumerate(row["checks"]):
            first = i == 0
            if row["steps"]:
                how = f"{row['budget']}, n = {row['n']}, {row['steps']:,} steps"
            else:
                how = "counted" if row["n"] == 1 else f"{row['n']} rounds of timing"
            lines.append(
                (
                    row["row"] if first else "",
                    f"{row['claim']} ({row['section']})" if first else "",
                    f"{row['dataset']} ({how})" if row["dataset"] else how,
                    check["what"],
                    band(check["band"], check["unit"]),
                    figure(check),
                    verdict(check, row),
                )
            )
    return lines


HEADS = ("row", "the chapter says", "on", "quantity", "stated", "measured", "verdict")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows that `row.measured` returned.

    A narrow terminal has no room for what the chapter says, which was printed before
    the row was measured, nor for a column of what the figures are of.
    """
    console = Console(width=None if Console().is_terminal else 160)
    heads: tuple[str, ...] = HEADS
    lines = _rows(rows)
    if console.width < NARROW:
        heads = ("row, on", *HEADS[3:])
        lines = [("\n".join(line[:3:2]).strip(), *line[3:]) for line in lines]
    table = Table(box=box.SIMPLE, pad_edge=False) if heads != HEADS else Table()
    for head in heads:
        table.add_column(head, overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table, highlight=False, markup=False)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as Markdown: the claims, what was run, the other quantities."""
    runs, besides = [], []
    for row in rows:
        note = f" {row['note'].rstrip('.')}." if row["note"] else ""
        runs.append(f"- `{row['row']}`: {row['what']}.{note}")
        for i, also in enumerate(row["also"]):
            name = "" if i else row["row"]
            besides.append((name, also["what"], _beside(also, row["n"])))
    parts = [_table(HEADS, _rows(rows)), runs]
    if besides:
        parts.append(_table(("row", "not judged", "measured"), besides))
    return "\n\n".join("\n".join(part) for part in parts)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    between = f"|{'---|' * len(heads)}"
    head, *rest = (f"| {' | '.join(line)} |" for line in (heads, *lines))
    return [head, between, *rest]


def _beside(also: Mapping[str, Any], n: int) -> str:
    """Formats a quantity beside a claim, with its n where the claim has another."""
    own = len(also["values"])
    return figure(also) + (f" (n = {own})" if 1 < own != n else "")


def write_readme(rows: Sequence[Mapping[str, Any]], readme: Path) -> bool:
    """Replaces what is between the README's marks; returns whether it has them."""
    if not readme.exists():
        return False
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return False
    text = f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}"
    files.write_text(readme, text)
    return True


def chart(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws every check beside its band, as PNG: its mean, and its interval if any.

    Every check has its own scale, on which its band is one wide and has its middle at
    0; a band that is one number is as wide as that number. If the band has no upper
    end, it is as wide as the interval's farther end is distant. Beyond `LINEAR` the
    scale is logarithmic, so that no interval is cut off.
    """
    with plots.figure() as drawn:
        draw(drawn, rows)
        return plots.png(drawn)


def draw(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws what `chart` describes on a figure, and makes it as high as it needs."""
    shown = [
        (_wrapped(f"{row['row']}: {check['what']}"), check)
        for row in rows
        for check in row["checks"]
    ]
    lines = sum(1 + name.count("\n") for name, _ in shown)
    figure.set_size_inches(8.4, 1.8 + 0.13 * lines + 0.11 * len(shown))
    axes = figure.add_subplot()
    axes.axvspan(-0.5, 0.5, color="#009E73", alpha=0.12, lw=0)
    axes.axvline(-0.5, color="black", lw=0.6)
    dots: dict[str, Any] = {}  # verdict -> one of its dots
    heights: list[float] = []
    top, farthest = 0.0, LINEAR
    for name, check in shown:
        # A check with a label of two lines has more room.
        height = 1 + 0.55 * name.count("\n")
        heights.append(top + height / 2)
        top += height
        low, high = check["band"]
        n, spread = len(check["values"]), check["std"]
        known = [check["mean"], *(check["interval"] if spread and n > 1 else [])]
        if high is None:
            unit = max(abs(end - low) for end in known) or 1.0
        else:
            unit = high - low or abs(low) or 1.0
        middle = 0.0 if low == high else 0.5
        at, *ends = ((end - low) / unit - middle for end in known)
        farthest = max(farthest, abs(at), *map(abs, ends))
        colour = COLOURS[check["verdict"]]
        axes.plot(ends, heights[-1:] * len(ends), color=colour)
        (dot,) = axes.plot(at, heights[-1], "o", color=colour, markersize=4)
        dots.setdefault(check["verdict"], dot)
        mean = number(check["mean"], check["unit"], signed=check["unit"] == "points")
        axes.annotate(
            f"{mean}, counted" if n == 1 and spread == 0 else f"{mean}, n = {n}",
            (1.01, heights[-1]),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
        )
    axes.set_yticks(heights, [name for name, _ in shown])
    axes.tick_params(labelsize=7)
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=1.5)
    powers = [10.0**k for k in range(1, 1 + math.floor(math.log10(farthest)))] or [1.0]
    # Only the outermost have labels, as there is no room for all.
    names = ["" for _ in powers[1:]] + [f"{power:,.0f}" for power in powers[-1:]]
    axes.set_xticks(
        [*(-power for power in powers), 0, *powers],
        [*(name and f"-{name}" for name in names), "band", *names],
    )
    axes.minorticks_off()
    axes.set_xlim(-1.1 * farthest, 1.1 * farthest)
    axes.set_ylim(max(1, top), 0)
    axes.set_xlabel(
        "what was counted has no interval; a band without an end is drawn as far as"
        " what was measured reaches;\n"
        "numbers are widths of the band from its middle, on a logarithmic scale",
        fontsize=7,
    )
    axes.set_title("measured, with intervals, against the stated band", fontsize=9)
    figure.legend(
        dots.values(),
        dots,
        loc="outside lower center",
        ncols=3,
        fontsize=7,
        frameon=False,
    )


def _wrapped(name: str) -> str:
    """Returns a label in lines that the chart has room for."""
    return textwrap.fill(plots.text(name, len(name)), 44)
