"""Updates of batches that are made on the device, many in one call."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import parallel
from cnnjax.data import batches
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.metrics import Metrics
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import TrainState
from cnnjax.step import Batch, make_eval_step, make_multi_step
from cnnjax.updates import Recipe, settle, train_step_of, with_clean_accuracy

# seed -> `device_pipeline.chunk` of the steps at hand.
MakeChunk = Callable[..., dict[str, np.ndarray]]


class ResidentUpdate:
    """Many updates a call, of batches made on the device from the data set there."""

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        preprocessing: Preprocessing,
        *,
        put_chunk: Callable[[MakeChunk], Batch],
        compile_step: Callable[..., Any],
        axis_name: str | None,
        batch_size: int,
        steps_per_call: int,
        mesh: Mesh,
        clocks: Clocks,
    ) -> None:
        """Puts the data set on every device; compiles nothing yet.

        Args:
            recipe: network, loss and optimiser.
            split: the training pictures.
            preprocessing: crop, distortions and normalisation.
            put_chunk: (seed -> which examples make up the next steps) -> that on the
                devices, of the run's seed or of each of them.
            compile_step: (step, num_whole, donate) -> the step jitted or pmapped, as
                `parallel.compile_step`.
            axis_name: the mapped axis to sum over, or None where each device is alone.
            batch_size: of a seed's batch.
            steps_per_call: at most.
            mesh: the devices.
            clocks: where the time goes.
        """
        self.steps_per_call = steps_per_call
        self._put_chunk, self._mesh, self._clocks = put_chunk, mesh, clocks
        self._make_chunk = partial(
            batches.chunk,
            num_examples=len(split.labels),
            batch_size=batch_size,
            capacity=steps_per_call,
        )
        self._data = parallel.replicate(batches.whole(split), mesh)
        make_batch = partial(batches.make_batch, preprocessing=preprocessing)
        step = make_multi_step(train_step_of(recipe, axis_name), make_batch)
        self._mapped = compile_step(step, num_whole=2, donate=True)
        self._mapped_clean = None
        if recipe.has_dropout:
            clean = _clean_step_of(recipe, make_batch, axis_name)
            self._mapped_clean = compile_step(clean, num_whole=1, donate=False)
        self._multi_step: Any = None
        self._clean_step: Any = None

    def __call__(
        self, state: TrainState, steps: range, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """See `updates.Update`; metrics of several seeds lead with [num_seeds]."""
        with self._clocks.training():
            chunk = self._put_chunk(
                partial(self._make_chunk, first_step=steps.start, num_steps=len(steps))
            )
            count = parallel.replicate(np.int32(len(steps)), self._mesh)
        if self._multi_step is None:
            self._multi_step = self._clocks.compile(
                self._mapped, state, chunk, self._data, count
            )
            if self._mapped_clean is not None:
                self._clean_step = self._clocks.compile(
                    self._mapped_clean, state, chunk, self._data
                )
        clean = None
        if fetch and self._clean_step is not None:
            clean = jax.device_get(self._clean_step(state, chunk, self._data))
        with self._clocks.training():
            state, metrics = self._multi_step(state, chunk, self._data, count)
            metrics = settle(metrics, self._mesh, fetch)
        metrics = {name: values[..., : len(steps)] for name, values in metrics.items()}
        return state, with_clean_accuracy(metrics, clean)


def make_update(
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
) -> ResidentUpdate:
    """Returns the updates of one run, whose batches the devices share.

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

    def put_chunk(make_chunk: MakeChunk) -> Batch:
        made = make_chunk(seed=seed)
        rows = parallel.own_rows(batch_size, mesh)
        own = {name: values[rows] for name, values in made.items()}
        return parallel.put_batch(own, mesh, mode)

    return ResidentUpdate(
        recipe,
        split,
        preprocessing,
        put_chunk=put_chunk,
        compile_step=partial(parallel.compile_step, mesh=mesh, mode=mode),
        axis_name=parallel.AXIS,
        batch_size=batch_size,
        steps_per_call=steps_per_call,
        mesh=mesh,
        clocks=clocks,
    )


def _clean_step_of(
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
