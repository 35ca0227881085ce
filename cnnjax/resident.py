"""Updates of batches that are made on the device, many in one call."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import parallel
from cnnjax.clocks import Clocks
from cnnjax.data import device_pipeline
from cnnjax.data.arrays import Split
from cnnjax.data.augment import Preprocessing
from cnnjax.metrics import Metrics
from cnnjax.state import TrainState
from cnnjax.step import Batch, make_eval_step, make_multi_step
from cnnjax.updates import Recipe, settle, train_step_of, with_clean_accuracy


class ResidentUpdate:
    """Many updates a call, of batches made on the device from the data set there."""

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        preprocessing: Preprocessing,
        *,
        seed: int,
        batch_size: int,
        steps_per_call: int,
        mesh: Mesh,
        mode: str,
        clocks: Clocks,
    ) -> None:
        """Puts the data set on every device; compiles nothing yet.

        Args:
            recipe: network, loss and optimiser.
            split: the training pictures.
            preprocessing: crop, distortions and normalisation.
            seed: of the run.
            batch_size: of the global batch.
            steps_per_call: at most.
            mesh: the devices.
            mode: `jit` or `pmap`.
            clocks: where the time goes.
        """
        self.steps_per_call = steps_per_call
        self._make_chunk = partial(
            device_pipeline.chunk,
            seed=seed,
            num_examples=len(split.labels),
            batch_size=batch_size,
            capacity=steps_per_call,
        )
        self._mesh, self._mode, self._clocks = mesh, mode, clocks
        self._data = parallel.replicate(device_pipeline.whole(split), mesh)
        make_batch = partial(device_pipeline.make_batch, preprocessing=preprocessing)
        self._mapped = parallel.compile_step(
            make_multi_step(train_step_of(recipe), make_batch),
            mesh,
            mode,
            donate=True,
            num_whole=2,
        )
        self._mapped_eval = None
        if recipe.has_dropout:
            clean_step = clean_step_of(recipe, make_batch, parallel.AXIS)
            self._mapped_eval = parallel.compile_step(
                clean_step, mesh, mode, num_whole=1
            )
        self._multi_step: Any = None
        self._eval_step: Any = None

    def __call__(
        self, state: TrainState, steps: range, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """See `Update`."""
        with self._clocks.training():
            made = self._make_chunk(first_step=steps.start, num_steps=len(steps))
            rows = parallel.own_rows(len(made["index"]), self._mesh)
            own = {name: values[rows] for name, values in made.items()}
            chunk = parallel.put_batch(own, self._mesh, self._mode)
            count = parallel.replicate(np.int32(len(steps)), self._mesh)
        if self._multi_step is None:
            self._multi_step = self._clocks.compile(
                self._mapped, state, chunk, self._data, count
            )
            if self._mapped_eval is not None:
                self._eval_step = self._clocks.compile(
                    self._mapped_eval, state, chunk, self._data
                )
        clean = None
        if fetch and self._eval_step is not None:
            clean = jax.device_get(self._eval_step(state, chunk, self._data))
        with self._clocks.training():
            state, metrics = self._multi_step(state, chunk, self._data, count)
            metrics = settle(metrics, self._mesh, fetch)
        metrics = {name: values[: len(steps)] for name, values in metrics.items()}
        return state, with_clean_accuracy(metrics, clean)


def clean_step_of(
    recipe: Recipe, make_batch: Callable[..., Batch], axis_name: str | None
) -> Callable[[TrainState, Batch, Batch], Metrics]:
    """Returns (state, chunk, data) -> sums over the chunk's first batch, no dropout.

    Args:
        recipe: network and loss.
        make_batch: as `make_multi_step` takes it.
        axis_name: the mapped axis to sum over, or None on a single device.
    """
    eval_step = make_eval_step(
        recipe.model, loss_fn=recipe.loss_fn, axis_name=axis_name
    )

    def first_of_chunk(state: TrainState, chunk: Batch, data: Batch) -> Metrics:
        index, position = chunk["index"][:, 0], chunk["position"][:, 0]
        batch = make_batch(state.seed, data, index, position)
        return eval_step(state.params, batch)

    return first_of_chunk
