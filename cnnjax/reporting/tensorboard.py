"""Writes what the original tutorial showed in TensorBoard, using tensorboardX.

Records are written in the training thread: tensorboardX's own writer passes them to
another thread through a bounded queue, on which a run would wait forever when the disk
is full.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax import prng
from cnnjax.data import augment, sampling
from cnnjax.data.dataset import Split
from cnnjax.data.inspection import grid, stretch
from cnnjax.models import summary
from cnnjax.recipe import Recipe

FOLDER = "tensorboard"
HINT = "TensorBoard: off, pip install 'tensorboardX>=2.6.3,<3' and it is on"

# A quarter of the chapter's batch shows as much, and takes a quarter of the time.
NUM_PICTURES = 32
COLUMNS = 8
BINS = 64

Look = Callable[[int, Any], Any]


class Board:
    """The event files of a run; without a folder it does nothing.

    `train/` and `eval/` are separate, as in the tutorial, because a resumed run hides
    old `train/*` records from its first step on, but `eval/*` records, which describe
    the state after an update, only after that step.
    """

    def __init__(self, directory: Path | None, first_step: int, look: Look) -> None:
        """Opens new event files, which hide records from `first_step` on.

        `first_step` is the number of completed updates: a stopped run may have written
        more than it saved. `look` is from `make_look`; `directory` None writes nothing.
        """
        self._look = look
        self._files: dict[str, Any] = {}
        if directory is None:
            return
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        for name, step in (("train", first_step), ("eval", first_step + 1)):
            (directory / name).mkdir(parents=True, exist_ok=True)
            prefix = str(directory / name / "events")
            self._files[name] = EventsWriter(prefix, f".{first_step}")
            if first_step:
                # TensorBoard then hides the older files' records from this step on.
                log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                self._write(name, step, session_log=log)

    def _write(self, name: str, step: int, **what: Any) -> None:
        from tensorboardX.proto import event_pb2

        event = event_pb2.Event(step=step, wall_time=time.time(), **what)
        self._files[name].write_event(event)

    def scalars(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Writes the numeric values of a line of `metrics.jsonl`."""
        if not self._files:
            return
        from tensorboardX import summary as proto

        name = "eval" if any(key.startswith("eval") for key in values) else "train"
        for key, value in values.items():
            if not isinstance(value, str):
                self._write(name, step, summary=proto.scalar(key, value))

    def look(self, step: int, variables: Any) -> None:
        """Writes images, histograms and sparsity after `step` updates, at least 1.

        `input` is the beginning of the last batch, distorted; `filters` are those of
        the first convolution, each scaled from its least to its greatest weight;
        `activations` and `sparsity`, the fraction that is exactly zero, are those of
        every layer on that input.
        """
        if not self._files:
            return
        from tensorboardX import summary as proto

        variables = jax.device_get(variables)
        images, outputs, kernel = jax.device_get(self._look(step - 1, variables))
        if not all(np.isfinite(values).all() for values in outputs.values()):
            return  # it has diverged, which the check of the metrics will report
        write = partial(self._write, "eval", step)

        def picture(tag: str, values: np.ndarray) -> None:
            image = grid(stretch(values), COLUMNS)
            write(summary=proto.image(tag, image, dataformats="HWC"))

        picture("input", images)
        if kernel is not None:
            picture("filters", np.moveaxis(kernel, -1, 0))
        for layer, values in outputs.items():
            found = values.astype(np.float64)
            histogram = proto.histogram(f"{layer}/activations", found, BINS)
            write(summary=histogram)
            zero = float(np.mean(found == 0))
            write(summary=proto.scalar(f"{layer}/sparsity", zero))
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()


@contextmanager
def open_board(
    workdir: Path, first_step: int, *, wanted: bool, look: Look
) -> Iterator[Board]:
    """Opens the event files of a run, in `workdir/tensorboard`, while the block runs.

    Nothing is written unless `wanted`, or without tensorboardX. `first_step` is the
    number of completed updates; `look` is from `make_look`.
    """
    found = importlib.util.find_spec("tensorboardX") is not None
    if wanted and not found:
        print(HINT, flush=True)
    board = Board(workdir / FOLDER if wanted and found else None, first_step, look)
    try:
        yield board
    finally:
        board.close()


def make_look(recipe: Recipe, split: Split, seed: int, batch_size: int) -> Look:
    """Returns a function (step, variables) that looks at the first images of a batch.

    Its variables are on the host. It returns the network's input for the first 32
    images of that step, float32 [n, height, width, channels], the result of
    `summary.activations` for them, and the first kernel, or None.
    """
    key = prng.from_seed(seed, prng.DATA)
    model, how = recipe.model, recipe.preprocessing

    @jax.jit
    def outputs(variables: Any, images: jax.Array, positions: jax.Array) -> Any:
        drawn = augment.draw(key, positions, how, images.shape[1:])
        fed = augment.apply(images, drawn, how)
        shape = how.output_shape(images.shape[1:])
        kernel = summary.first_kernel(model, variables["params"], shape)
        return fed, summary.activations(model, variables, fed), kernel

    def look(step: int, variables: Any) -> Any:
        start = step * batch_size
        positions = range(start, start + min(NUM_PICTURES, batch_size))
        indices = sampling.example_indices(seed, len(split.labels), positions)
        return outputs(variables, split.images[indices], np.array(positions, np.uint32))

    return look
