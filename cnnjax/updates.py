"""Feeds the compiled step with batches from the host, or made on the devices."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from cnnjax.data import batches as batching
from cnnjax.data.dataset import Split
from cnnjax.metrics import Metrics
from cnnjax.models.facts import facts_of
from cnnjax.parallel import Part, Partitioner
from cnnjax.recipe import Recipe
from cnnjax.runtime.clocks import Clocks, Compiled
from cnnjax.state import TrainState
from cnnjax.step import Batch, make_eval_step, make_multi_step, make_train_step


class Update(Protocol):
    """Makes the next updates of a run, at most `steps_per_call` in one call."""

    steps_per_call: int

    def __call__(
        self, state: TrainState, steps: range, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state after `steps`, and the metrics of each step.

        They are arrays [len(steps)], or scalars from `StreamedUpdate`; with several
        seeds they lead with [num_seeds]. With `fetch` they are on the host, and the
        first accuracy is measured without dropout, as the chapter prints it.
        """


class StreamedUpdate:
    """Makes one update per call, of a batch that comes from the host."""

    steps_per_call = 1

    def __init__(
        self,
        recipe: Recipe,
        batches: Iterator[dict[str, np.ndarray]],
        partitioner: Partitioner,
        clocks: Clocks,
    ) -> None:
        """Compiles nothing yet: compilation needs the first batch.

        `batches` yields this process's rows of every batch, from the first step on;
        `partitioner` is for one seed; `clocks` measure compilation and training.
        """
        self._batches, self._partitioner, self._clocks = batches, partitioner, clocks
        axis, parts = partitioner.axis_name, (Part.STATE, Part.TRAINING_BATCH)
        self._train_step = Compiled(
            partitioner.compile(make_train_step(recipe, axis), *parts, donate=True),
            clocks,
        )
        self._clean_step: Compiled | None = None
        if facts_of(recipe.model).has_dropout:
            clean = make_eval_step(recipe, axis_name=axis, prepared=True)
            self._clean_step = Compiled(partitioner.compile(clean, *parts), clocks)
        self._ahead: dict[str, jax.Array] | None = None

    def _next_batch(self) -> dict[str, jax.Array] | None:
        batch = next(self._batches, None)
        return None if batch is None else self._partitioner.put_batch(batch)

    def __call__(
        self, state: TrainState, steps: range, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """See `Update`; `steps` is one step."""
        with self._clocks.training():
            batch = self._ahead or self._next_batch()
        self._train_step.prepare(state, batch)
        clean = None
        if self._clean_step is not None:
            self._clean_step.prepare(state.variables, batch)
            if fetch:
                clean = jax.device_get(self._clean_step(state.variables, batch))
        with self._clocks.training():
            state, metrics = self._train_step(state, batch)
            # Made while the devices compute; later they would have to wait for it.
            self._ahead = self._next_batch()
            metrics = _settle(metrics, self._partitioner, fetch)
        return state, _with_clean_accuracy(metrics, clean)


class ResidentUpdate:
    """Makes many updates per call, of batches made on the devices, which hold all data.

    The compiled program loops over the updates, see `make_multi_step`.
    """

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        partitioner: Partitioner,
        *,
        seed: int,
        batch_size: int,
        steps_per_call: int,
        clocks: Clocks,
    ) -> None:
        """Puts the data set on every device; compiles nothing yet.

        `seed` is the run's; with several seeds, the others follow it. `batch_size` is
        that of each seed's global batch.
        """
        self.steps_per_call = steps_per_call
        self._partitioner, self._clocks = partitioner, clocks
        self._seeds = range(seed, seed + partitioner.num_seeds)
        self._chunk = partial(
            batching.chunk,
            num_examples=len(split.labels),
            batch_size=batch_size,
            capacity=steps_per_call,
        )
        self._rows = partitioner.rows(batch_size)
        self._data = partitioner.replicate(batching.whole(split))
        axis = partitioner.axis_name
        make_batch = partial(batching.make_batch, preprocessing=recipe.preprocessing)
        step = make_multi_step(make_train_step(recipe, axis), make_batch)
        parts = (Part.STATE, Part.TRAINING_BATCH, Part.WHOLE)
        self._multi_step = Compiled(
            partitioner.compile(step, *parts, Part.WHOLE, donate=True), clocks
        )
        self._clean_step: Compiled | None = None
        if facts_of(recipe.model).has_dropout:
            clean = _clean_step_of(recipe, make_batch, axis)
            self._clean_step = Compiled(partitioner.compile(clean, *parts), clocks)

    def __call__(
        self, state: TrainState, steps: range, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """See `Update`."""
        with self._clocks.training():
            chunks = [
                self._chunk(seed=seed, first_step=steps.start, num_steps=len(steps))
                for seed in self._seeds
            ]
            mine = [{k: v[self._rows] for k, v in chunk.items()} for chunk in chunks]
            chunk = self._partitioner.put_each(mine, Part.TRAINING_BATCH)
            count = self._partitioner.replicate(np.int32(len(steps)))
        self._multi_step.prepare(state, chunk, self._data, count)
        clean = None
        if self._clean_step is not None:
            self._clean_step.prepare(state, chunk, self._data)
            if fetch:
                clean = jax.device_get(self._clean_step(state, chunk, self._data))
        with self._clocks.training():
            state, metrics = self._multi_step(state, chunk, self._data, count)
            metrics = _settle(metrics, self._partitioner, fetch)
        metrics = {name: values[..., : len(steps)] for name, values in metrics.items()}
        return state, _with_clean_accuracy(metrics, clean)


def _clean_step_of(
    recipe: Recipe, make_batch: Callable[..., Batch], axis_name: str | None
) -> Callable[[TrainState, Batch, Batch], Metrics]:
    """Returns (state, chunk, data) -> Metrics of the first batch, without dropout."""
    eval_step = make_eval_step(recipe, axis_name=axis_name, prepared=True)

    def first_of_chunk(state: TrainState, chunk: Batch, data: Batch) -> Metrics:
        index, position = chunk["index"][:, 0], chunk["position"][:, 0]
        batch = make_batch(state.seed, data, index, position)
        return eval_step(state.variables, batch)

    return first_of_chunk


def _settle(
    metrics: dict[str, jax.Array], partitioner: Partitioner, fetch: bool
) -> dict[str, Any]:
    """Returns the metrics, on the host with `fetch`, once the next step may start."""
    if fetch:
        return jax.device_get(metrics)
    partitioner.wait_for(metrics)
    return metrics


def _with_clean_accuracy(
    metrics: dict[str, Any], clean: Metrics | None
) -> dict[str, Any]:
    """Replaces the first accuracy by that of `clean`, if any."""
    if clean is None:
        return metrics
    accuracy = np.atleast_1d(np.array(metrics["accuracy"]))
    accuracy[..., 0] = clean.correct / clean.count
    return metrics | {"accuracy": accuracy}
