"""Writes `metrics.jsonl` and formats the chapter's lines for the console."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cnnjax.errors import RunError
from cnnjax.metrics import mean_of


class Writer:
    """A context manager that appends JSON objects to `metrics.jsonl`, one per line."""

    def __init__(
        self,
        path: Path,
        also: Callable[[int, Mapping[str, float | int | str]], None] | None = None,
    ) -> None:
        """Opens `path` for appending; `also` receives each line's step and values."""
        # Line buffering, so that a killed run loses at most one line.
        self._file = path.open("a", buffering=1)
        self._also = also
        self._path, self._is_linked = path, self._links() > 0

    def _links(self) -> int:
        return os.fstat(self._file.fileno()).st_nlink

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends {"step": step, **values}; a non-finite number becomes null.

        Args:
            step: number of completed updates.
            values: numbers and texts, or lists with one of them per seed.

        Raises:
            RunError: the file has been deleted, so that its lines would be lost.
        """
        if self._is_linked and not self._links():
            raise RunError(
                f"{self._path} was deleted while this ran, and its lines are lost; the"
                " checkpoints are kept: run the same again to go on from the last"
            )
        record = {"step": step} | {name: _jsonable(v) for name, v in values.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        if self._also is not None:
            self._also(step, values)


def _jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_jsonable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def training_line(values: Mapping[str, Any], step: int) -> str:
    """Returns the chapter's line: step, loss, examples per second, seconds per batch.

    With several seeds, the loss is their mean.
    """
    return (
        f"step {step}, loss={mean_of(values, 'train/loss'):.2f}"
        f" ({values['perf/examples_per_sec']:.1f} examples/sec;"
        f" {values['perf/sec_per_batch']:.3f} sec/batch)"
    )


def precision_line(values: Mapping[str, Any], prefix: str, dataset: str, k: int) -> str:
    """Returns the chapter's last line, with the exact count and the data set's name.

    With several seeds, it has their mean and standard deviation.
    """
    accuracy, count = values[f"{prefix}/accuracy"], values[f"{prefix}/count"]
    if isinstance(accuracy, list):
        mean, std = (values[f"{prefix}/accuracy/{part}"] for part in ("mean", "std"))
        figure = f"{mean:.3f} ± {std:.3f} ({len(accuracy)} seeds, {count} pictures)"
    else:
        figure = f"{accuracy:.3f} ({values[f'{prefix}/correct']}/{count})"
    return f"precision @ {k} = {figure} on {dataset} [{prefix}]"
