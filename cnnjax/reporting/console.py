"""The console output at the start and end of a run, and its progress bar."""

import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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

# The prefixes of accuracies in final_metrics.json, in the order of printing: those that
# exist. A search does not load the test split and has those of the validation split.
TESTED = tuple(
    f"{split}{views}{average}"
    for split in ("test", "val")
    for views in ("", "_multiview")
    for average in ("", "_ema")
)


def print_notice(*sentences: str) -> None:
    """Prints sentences on lines of their own, wrapped at words, on a terminal.

    Elsewhere all are one line. Those that are "" are left out.
    """
    said = [sentence for sentence in sentences if sentence]
    if sys.stdout.isatty():
        wrapper = textwrap.TextWrapper(
            shutil.get_terminal_size().columns,
            break_long_words=False,
            break_on_hyphens=False,
        )
        print(*map(wrapper.fill, said), sep="\n")
    else:
        print("; ".join(said))
    sys.stdout.flush()


def print_done(workdir: Path, note: str = "") -> None:
    """Prints a note, the folder of a run, and the command that makes its report."""
    command = f"python experiments/report.py --workdir={shlex.quote(str(workdir))}"
    print_notice(note, f"folder: {workdir}", f"its report: {command}")


def print_setup(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    dataset: Dataset,
    partitioner: Partitioner,
    batch_size: int,
) -> None:
    """Prints the network's layers, the data set and the devices.

    `input_shape` is (height, width, channels) of the network's input, and `batch_size`
    that of the global batch.
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
    """Prints the precision @ `top_k`, with counts and data set, and the time taken.

    `final` is the content of `final_metrics.json`.
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
    """Prints the precision @ `top_k` for each of `TESTED` that `values` holds.

    The keys are those of `evaluation.summarise`. Each of `seeds` gets a line of its own
    before the line of their mean.
    """
    for prefix in TESTED:
        if f"{prefix}/accuracy" in values:
            for k, seed in enumerate(seeds):
                own = of_seed(values, k)
                line = metrics_log.precision_line(own, prefix, dataset, top_k)
                print(f"seed {seed}: {line}")
            print(metrics_log.precision_line(values, prefix, dataset, top_k))


# Drawing takes about a millisecond and happens in the training thread.
SECONDS_BETWEEN = 0.5


@contextmanager
def bar(first: int, steps: int) -> Iterator[Callable[..., None]]:
    """Draws a progress bar on the last line of a terminal, below what the block prints.

    If standard output is no terminal, or one that cannot move its cursor, nothing is
    drawn, and what is being done is printed as lines. The cursor stays visible, so that
    a run that is killed leaves it visible. `first` steps of `steps` are done already
    and do not count for the time left.

    Yields:
        a function that takes the number of completed steps, and a word for what is
        being done if that is no step.
    """
    console = Console()
    if not sys.stdout.isatty() or console.is_dumb_terminal:

        def say(done: int, word: str = "") -> None:
            if word:
                print(f"{word} at step {done}", flush=True)

        yield say
        return
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns,
        console=console,
        auto_refresh=False,
        # Otherwise, standard error that goes to a file would appear here.
        redirect_stderr=sys.stderr.isatty(),
    ) as progress:
        console.show_cursor(True)
        task = progress.add_task("", total=steps, completed=first)
        progress.refresh()
        drawn, shown = time.monotonic(), ""

        def advance(done: int, word: str = "") -> None:
            nonlocal drawn, shown
            now = time.monotonic()
            if word == shown and done < steps and now - drawn < SECONDS_BETWEEN:
                return
            drawn, shown = now, word
            progress.update(task, completed=done, description=word, refresh=True)

        yield advance
