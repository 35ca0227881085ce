"""What a run prints as it begins and as it ends."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cnnjax.data.dataset import Dataset
from cnnjax.metrics import of_seed
from cnnjax.models import summary
from cnnjax.parallel import Partitioner
from cnnjax.reporting import metrics_log

# What final_metrics.json holds accuracies of, where they exist, in this order. Of the
# validation split where a search has not opened the test set.
TESTED = tuple(
    f"{split}{views}{average}"
    for split in ("test", "val")
    for views in ("", "_multiview")
    for average in ("", "_ema")
)


def print_setup(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    dataset: Dataset,
    partitioner: Partitioner,
    batch_size: int,
) -> None:
    """Prints the network's layers, the data set and the devices.

    Args:
        model: a Linen module.
        input_shape: (height, width, channels) of what it is fed.
        dataset: what it is trained and tested on.
        partitioner: the devices, and how many seeds share them.
        batch_size: of the global batch.
    """
    print(summary.table(summary.layers(model, input_shape)))
    print(
        f"data: {dataset.name} {dataset.version}, {dataset.num_classes} classes,"
        f" {len(dataset.train.labels)} training and {len(dataset.test.labels)} test"
        " pictures"
    )
    mesh, count, what = partitioner.mesh, batch_size, "pictures of a batch"
    if partitioner.num_seeds > 1:
        count, what = partitioner.num_seeds, "seeds"
    print(
        f"devices: {mesh.size} x {mesh.devices.flat[0].device_kind}"
        f" ({partitioner.mode}), {count // mesh.size} of the {count} {what} on each",
        flush=True,
    )


def print_summary(final: Mapping[str, Any], top_k: int) -> None:
    """Prints the precision, with counts and the data set's name, and the time taken.

    Args:
        final: what `final_metrics.json` holds.
        top_k: that the precision is at.
    """
    print_precisions(final, final["dataset"], top_k)
    print(
        f"{final['steps']} steps in {final['train_seconds']:.1f} s"
        f" ({final['perf/examples_per_sec']:.1f} examples/sec), compiled in"
        f" {final['compile_seconds']:.1f} s",
        flush=True,
    )


def print_precisions(
    values: Mapping[str, Any], dataset: str, top_k: int, seeds: Sequence[int] = ()
) -> None:
    """Prints the precision of each of `TESTED` that `values` holds.

    Args:
        values: as `evaluation.summarise` names them.
        dataset: the name of what was tested on.
        top_k: that the precision is at.
        seeds: of the replicas, each of which gets a line before that of them all.
    """
    for prefix in TESTED:
        if f"{prefix}/accuracy" in values:
            for k, seed in enumerate(seeds):
                own = of_seed(values, k)
                line = metrics_log.precision_line(own, prefix, dataset, top_k)
                print(f"seed {seed}: {line}")
            print(metrics_log.precision_line(values, prefix, dataset, top_k))


# Drawing takes about a millisecond; there is no thread that does it in between.
SECONDS_BETWEEN = 0.5


@contextmanager
def bar(first: int, steps: int) -> Iterator[Callable[[int], None]]:
    """Draws a bar of the steps done on the last line of a terminal.

    What is printed in the block stands above it. Where standard output is no terminal,
    or one that cannot move its cursor, nothing is drawn and nothing changes. The cursor
    stays visible, so that a run that is killed leaves the terminal as it was.

    Args:
        first: steps that are done already; the time left is not reckoned from them.
        steps: of the whole run.

    Yields:
        a function that takes the number of steps done.
    """
    console = Console()
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        yield lambda done: None
        return
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        auto_refresh=False,
        # Or what goes to a file would end up here.
        redirect_stderr=sys.stderr.isatty(),
    ) as progress:
        console.show_cursor(True)
        task = progress.add_task("", total=steps, completed=first)
        progress.refresh()
        drawn = time.monotonic()

        def advance(done: int) -> None:
            nonlocal drawn
            now = time.monotonic()
            if done < steps and now - drawn < SECONDS_BETWEEN:
                return
            drawn = now
            progress.update(task, completed=done, refresh=True)

        yield advance
