"""Shows the claims: a table on the console and in Markdown, and a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    checks.UNLEARNED: "#777777",
    checks.TOO_SHORT: "#BBBBBB",
}


def number(value: float, unit: str, *, signed: bool = False) -> str:
    """Formats a figure for display: "99.13%", "+0.42 points", "1,068,298"."""
    sign = "+" if signed else ""
    if unit in ("%", "points"):
        text = f"{100 * value:{sign}.2f}"
        return f"{text}%" if unit == "%" else f"{text} points"
    shape = ",.0f" if abs(value) >= 100 else ".3g"
    return f"{value:{sign}{shape}}" + (f" {unit}" if unit else "")


def figure(check: Mapping[str, Any]) -> str:
    """Formats a check's mean, standard deviation and 95% interval."""
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
                    check["verdict"],
                )
            )
    return lines


HEADS = ("row", "the chapter says", "on", "quantity", "stated", "measured", "verdict")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows that `row.measured` returned."""
    table = Table(show_lines=False)
    for head in HEADS:
        table.add_column(head, overflow="fold")
    for line in _rows(rows):
        table.add_row(*line)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table, highlight=False, markup=False)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as Markdown: the table, then a list of the other quantities."""
    lines = [
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
        *(f"| {' | '.join(line)} |" for line in _rows(rows)),
    ]
    besides = []
    for row in rows:
        texts = [f"{also['what']} {figure(also)}" for also in row["also"]]
        if row["note"]:
            texts.append(row["note"].rstrip("."))
        if texts:
            besides.append(f"- `{row['row']}` ({row['what']}): {'; '.join(texts)}.")
    return "\n".join([*lines, "", *besides])


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
    """Draws the mean and interval of every check that has one beside its band, as PNG.

    Every check has its own scale, on which its band reaches from 0 to 1. If the band
    has no upper end, the unit is the distance to the interval's farther end.
    """
    shown = [
        (f"{row['row']}: {check['what']}", check)
        for row in rows
        for check in row["checks"]
        if len(check["values"]) > 1 and check["std"]
    ]
    height = 1.2 + 0.24 * max(1, len(shown))
    with plots.figure(7.2, height) as drawn:
        axes = drawn.add_subplot()
        axes.axvspan(0, 1, color="#009E73", alpha=0.12, lw=0)
        dots: dict[str, Any] = {}  # verdict -> one of its dots
        for i, (_, check) in enumerate(shown):
            low, high = check["band"]
            unit = (high - low) if high is not None else _reach(check)
            ends = [(end - low) / unit for end in check["interval"]]
            at = (check["mean"] - low) / unit
            colour = COLOURS[check["verdict"]]
            axes.plot([max(-2, min(3, end)) for end in ends], [i, i], color=colour)
            (dot,) = axes.plot(max(-2, min(3, at)), i, "o", color=colour, markersize=4)
            dots.setdefault(check["verdict"], dot)
            axes.annotate(
                number(check["mean"], check["unit"], signed=check["unit"] == "points"),
                (1.01, i),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7,
            )
        axes.set_yticks(range(len(shown)), [plots.text(name, 60) for name, _ in shown])
        axes.tick_params(labelsize=7)
        axes.set_xticks([0, 1], ["band begins", "ends"])
        axes.set_xlim(-2.05, 3.05)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.invert_yaxis()
        axes.axvline(0, color="black", lw=0.6)
        axes.set_title(
            "measured, with 95% intervals, against the stated band", fontsize=9
        )
        drawn.legend(
            dots.values(),
            dots,
            loc="outside lower center",
            ncols=max(1, len(dots)),
            fontsize=7,
            frameon=False,
        )
        return plots.png(drawn)


def _reach(check: Mapping[str, Any]) -> float:
    return max(abs(end - check["band"][0]) for end in check["interval"]) or 1.0
