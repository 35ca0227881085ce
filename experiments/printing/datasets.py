"""Output of `inspect_data.py`: tables of the data on a machine, and of one data set."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnjax.data.dataset import Dataset
from cnnjax.data.load import EMBEDDED
from printing import pixels
from printing.present import Found


def print_found(found: Sequence[Found]) -> None:
    """Prints a table of the data on the machine, with the embedded sets last."""
    table = _table("on this machine", "set", "what", "size", "where")
    for one in found:
        size = f"{one.size / 1e6:.1f} MB"
        table.add_row(Text(one.name), one.kind, size, Text(str(one.path)))
    for name in EMBEDDED:
        table.add_row(name, "embedded", "", "in this program")
    Console().print(table)


def print_dataset(dataset: Dataset) -> None:
    """Prints counts per class, mean and deviation per channel, and repetitions."""
    console = Console()
    height, width, channels = dataset.image_shape
    title = f"{dataset.name} {dataset.version}, {height}x{width}x{channels}"
    table = _table(title, "class", "train", "test")
    splits = (dataset.train, dataset.test)
    counts = [
        np.bincount(split.labels, minlength=dataset.num_classes) for split in splits
    ]
    for name, *row in zip(dataset.class_names, *counts, strict=True):
        table.add_row(Text(name), *[f"{count:,}" for count in row])
    table.add_row("all", *[f"{count.sum():,}" for count in counts], style="bold")
    console.print(table)

    table = _table("pixels, 0 to 255", "channel", "train", "test")
    figures = [pixels.mean_and_deviation(split.images) for split in splits]
    for channel in range(channels):
        table.add_row(
            str(channel), *[f"{m[channel]:.2f} ± {d[channel]:.2f}" for m, d in figures]
        )
    console.print(table)

    found = pixels.repeats(*splits)
    print(
        f"repeated pictures: {found.within_train} within train, {found.within_test}"
        f" within test, {found.across} of test are in train"
        f" ({found.across_mislabelled} of them under another label)"
    )
    print(f"fingerprint: {dataset.fingerprint}")


def _table(title: str, first: str, *others: str) -> Table:
    # `Text`, because rich would read brackets in a name as a style.
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    table.add_column(first, overflow="fold")
    for name in others:
        right = name in ("train", "test", "size")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table
