"""A bar with the time left, where a person is watching."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

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
