"""What the original tutorial showed in TensorBoard, through tensorboardX.

Written record by record in this thread: tensorboardX's own writer hands them to a
thread over a bounded queue, and a run whose disk is full would wait for it for ever.
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
    """Event files of a run; where there are none to be, it does nothing.

    `train/` and `eval/` are apart, as in the tutorial, because a resumed run hides
    `train/*` from its first step on, and what is said after updates only after it.
    """

    def __init__(self, directory: Path | None, first_step: int, look: Look) -> None:
        """Opens new event files, which hide what a stopped run wrote too far.

        Args:
            directory: the folder for them; None for none.
            first_step: updates that are done.
            look: from `make_look`.
        """
        self._look = look
        self._files: dict[str, Any] = {}
        if directory is None:
            return
        from tensorboardX.event_file_writer import EventsWriter

        for name, step in (("train", first_step), ("eval", first_step + 1)):
            (directory / name).mkdir(parents=True, exist_ok=True)
            prefix = str(directory / name / "events")
            self._files[name] = EventsWriter(prefix, f".{first_step}")
            if first_step:
                self._purge(name, step)

    def _purge(self, name: str, step: int) -> None:
        from tensorboardX.proto import event_pb2

        # What TensorBoard knows a restarted program by.
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(name, step, session_log=log)

    def _write(self, name: str, step: int, **what: Any) -> None:
        from tensorboardX.proto import event_pb2

        event = event_pb2.Event(step=step, wall_time=time.time(), **what)
        self._files[name].write_event(event)

    def scalars(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Writes the numbers among the values of a line of `metrics.jsonl`."""
        if not self._files:
            return
        from tensorboardX import summary as proto

        name = "eval" if any(key.startswith("eval") for key in values) else "train"
        for key, value in values.items():
            if not isinstance(value, str):
                self._write(name, step, summary=proto.scalar(key, value))

    def look(self, step: int, variables: Any) -> None:
        """Writes pictures, histograms and sparsity after `step` updates.

        `input` is the beginning of the last batch as it was distorted; `filters` are
        those of the first convolution, each from its least to its greatest weight;
        `activations` and `sparsity`, the fraction that is exactly zero, are of every
        layer on that input.

        Args:
            step: updates done, at least 1.
            variables: the network's parameters and other collections after them.
        """
        if not self._files:
            return
        from tensorboardX import summary as proto

        variables = jax.device_get(variables)
        images, outputs, kernel = jax.device_get(self._look(step - 1, variables))
        if not all(np.isfinite(values).all() for values in outputs.values()):
            return  # it has diverged, which the figures of the next step will say
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
        self.flush()

    def flush(self) -> None:
        """Hands what is written to the system."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Ends the files."""
        for file in self._files.values():
            file.close()


@contextmanager
def open_board(
    workdir: Path, first_step: int, *, wanted: bool, look: Look
) -> Iterator[Board]:
    """Opens the event files of a run, in `workdir/tensorboard`, while the block runs.

    Without tensorboardX, or where they are not wanted, nothing is written.

    Args:
        workdir: of the run.
        first_step: updates that are done.
        wanted: `train.tensorboard`.
        look: from `make_look`.
    """
    found = importlib.util.find_spec("tensorboardX") is not None
    if wanted and not found:
        print(HINT, flush=True)
    here = wanted and found and jax.process_index() == 0
    board = Board(workdir / FOLDER if here else None, first_step, look)
    try:
        yield board
    finally:
        board.close()


def make_look(recipe: Recipe, split: Split, seed: int, batch_size: int) -> Look:
    """Returns (step, variables) -> the beginning of that step's batch, and its outputs.

    Args:
        recipe: network and preprocessing.
        split: the training pictures.
        seed: of the run.
        batch_size: of the global batch.

    Returns:
        A function of the step and of variables on the host. Of the first 32 pictures it
        gives what the network is fed, float32 [n, height, width, channels]; what
        `summary.activations` gives of that; and the first kernel, or None.
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
