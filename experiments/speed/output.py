"""Prints the benchmark's tables and draws its chart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.console import Console
from rich.table import Table

OURS, THEIRS = "#0072b2", "#bbbbbb"  # distinguishable in greyscale


def print_group(name: str, group: Mapping[str, Any]) -> None:
    """Prints a group's `cases` and `ratios`, which are as in `benchmark.json`."""
    table = Table(title=name, title_justify="left")
    table.add_column("case")
    columns = ("ms (median)", "min", "max", "ms a step", "images/s", "GFLOP/s")
    for column in (*columns, "of peak"):
        table.add_column(column, justify="right")
    for case, row in group["cases"].items():
        times = row["milliseconds"]
        table.add_row(
            case,
            *(f"{times[key]:.2f}" for key in ("median", "min", "max")),
            _number(row.get("milliseconds_per_step"), "{:.3f}"),
            _number(row.get("images_per_second"), "{:,.0f}"),
            _number(row.get("gflops_per_second"), "{:.0f}"),
            _number(row.get("share_of_peak"), "{:.2f}"),
        )
    console = _console()
    console.print(table)
    for pair, times_as_fast in group["ratios"].items():
        console.print(f"{pair}: {times_as_fast:.2f} times as fast", highlight=False)
    console.print()


def print_kernels(program: str, found: Mapping[str, Any]) -> None:
    """Prints what `kernels.kernels_of` says of a program, which is named `program`."""
    console = _console()
    title = f"kernels: {program}, {found['kernels_per_step']} in the program"
    if "top" not in found:
        console.print(f"{title}; the trace has none\n", highlight=False)
        return
    console.print(
        f"{title}, {found['launches_per_step']:.0f} launches a step in the trace,"
        f" {found['milliseconds_per_step']:.3f} ms a step,"
        f" {found['busy']:.0%} of it busy",
        highlight=False,
    )
    table = Table()
    table.add_column("kernel", no_wrap=True)
    for column in ("share", "us a step", "launches a step"):
        table.add_column(column, justify="right")
    for kernel in found["top"]:
        table.add_row(
            kernel["name"],
            f"{kernel['share']:.1%}",
            f"{kernel['microseconds_per_step']:.1f}",
            f"{kernel['launches_per_step']:.1f}",
        )
    console.print(table)
    console.print()


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 110)


def _number(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)


def chart(groups: Mapping[str, Any], path: Path) -> bool:
    """Writes a bar chart of images per second: this project blue, others grey.

    Returns whether there are any; else it writes nothing.

    Args:
        groups: as in `benchmark.json`; what has no images is left out.
        path: file name of the PNG.
    """
    shown = {
        name: {
            case: row["images_per_second"]
            for case, row in group.get("cases", {}).items()
            if "images_per_second" in row
        }
        for name, group in groups.items()
    }
    shown = {name: cases for name, cases in shown.items() if cases}
    if not shown:
        return False
    heights = [len(cases) + 1.5 for cases in shown.values()]
    figure = Figure(figsize=(8, 0.3 * sum(heights) + 0.9), layout="constrained")
    all_axes = figure.subplots(len(shown), squeeze=False, height_ratios=heights)
    for axes, (name, cases) in zip(all_axes[:, 0], shown.items(), strict=True):
        colours = [THEIRS if _is_others(case) else OURS for case in cases]
        bars = axes.barh(list(cases), list(cases.values()), color=colours)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set_title(f"{name}: images a second", loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
    meant = {
        "this project": OURS,
        "others, and the libraries' own operations": THEIRS,
    }
    key = [Patch(color=colour, label=name) for name, colour in meant.items()]
    figure.legend(handles=key, loc="outside upper center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)
    return True


def _is_others(case: str) -> bool:
    others = ("PyTorch", "Keras", "plain Flax", "nn.", "lax.", "LRN by")
    return any(part.startswith(others) for part in case.split(", "))
