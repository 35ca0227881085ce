"""What is trained and how, and the feeding of the compiled step."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from cnnjax import parallel
from cnnjax.metrics import Metrics
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import TrainState
from cnnjax.step import LossFn, TrainStep, make_eval_step, make_train_step

Batches = Iterator[dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained, and how a step changes it.

    Attributes:
        model: a network of `cnnjax.models`.
        tx: the optax chain, with `schedule` and the gradient of the L2 penalty in it.
        schedule: step -> learning rate, for the log.
        loss_fn: (logits, labels) -> loss of each example, which is trained on.
        eval_loss_fn: the same for evaluations, which smooth no labels.
        l2: weight of the L2 penalty, for the log.
        penalised: the layers whose kernels it is of.
        ema_decay: of the moving average of the parameters; 0 keeps none.
        has_dropout: whether accuracy on a batch takes a pass with dropout off.
        l1: weight of the L1 penalty on the same kernels, for the log.
    """

    model: nn.Module
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    loss_fn: LossFn
    eval_loss_fn: LossFn
    l2: float
    penalised: Sequence[str]
    ema_decay: float
    has_dropout: bool
    l1: float = 0.0


class Update(Protocol):
    """Does the next updates of a run, `steps_per_call` at most."""

    steps_per_call: int

    def __call__(
        self, state: TrainState, steps: range, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state after `steps`, and the metrics of each.

        They are arrays [len(steps)], or numbers where that is one. With `fetch` they
        are on the host, and the first accuracy is that with dropout off, as the chapter
        prints it.
        """


class StreamedUpdate:
    """One update at a time, of batches that come from the host."""

    steps_per_call = 1

    def __init__(
        self, recipe: Recipe, batches: Batches, mesh: Mesh, mode: str, clocks: Clocks
    ) -> None:
        """Compiles nothing yet: that takes the first batch.

        Args:
            recipe: network, loss and optimiser.
            batches: from the first step on.
            mesh: the devices.
            mode: `jit` or `pmap`.
            clocks: where the time goes.
        """
        self._batches, self._mesh, self._mode = batches, mesh, mode
        self._clocks = clocks
        self._mapped = parallel.compile_step(
            train_step_of(recipe), mesh, mode, donate=True
        )
        self._mapped_eval = None
        if recipe.has_dropout:
            eval_step = make_eval_step(
                recipe.model, loss_fn=recipe.loss_fn, axis_name=parallel.AXIS
            )
            self._mapped_eval = parallel.compile_step(eval_step, mesh, mode)
        self._train_step: Any = None
        self._eval_step: Any = None
        self._ahead: dict[str, jax.Array] | None = None

    def _next_batch(self) -> dict[str, jax.Array] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        return parallel.put_batch(batch, self._mesh, self._mode)

    def __call__(
        self, state: TrainState, steps: range, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """See `Update`; `steps` is one step."""
        with self._clocks.training():
            batch = self._ahead or self._next_batch()
        if self._train_step is None:
            self._train_step = self._clocks.compile(self._mapped, state, batch)
            if self._mapped_eval is not None:
                self._eval_step = self._clocks.compile(
                    self._mapped_eval, state.params, batch
                )
        clean = None
        if fetch and self._eval_step is not None:
            clean = jax.device_get(self._eval_step(state.params, batch))
        with self._clocks.training():
            state, metrics = self._train_step(state, batch)
            # While the devices are at work; after it they would wait for it.
            self._ahead = self._next_batch()
            metrics = settle(metrics, self._mesh, fetch)
        return state, with_clean_accuracy(metrics, clean)


def train_step_of(recipe: Recipe, axis_name: str | None = parallel.AXIS) -> TrainStep:
    """Returns the training step of a recipe, for one device of a mesh."""
    return make_train_step(
        recipe.model,
        recipe.tx,
        loss_fn=recipe.loss_fn,
        l1=recipe.l1,
        l2=recipe.l2,
        penalised=recipe.penalised,
        ema_decay=recipe.ema_decay,
        axis_name=axis_name,
    )


def settle(metrics: dict[str, jax.Array], mesh: Mesh, fetch: bool) -> dict[str, Any]:
    """Returns the metrics, on the host with `fetch`; waits for them on a CPU."""
    if fetch:
        return jax.device_get(metrics)
    # On CPU a step that starts before the last one's all-reduce has met can take the
    # thread that it waits for: a deadlock. Waiting costs nothing there.
    if mesh.devices.flat[0].platform == "cpu":
        jax.block_until_ready(metrics)
    return metrics


def with_clean_accuracy(
    metrics: dict[str, Any], clean: Metrics | None
) -> dict[str, Any]:
    """Returns the metrics, the first accuracy replaced by that of `clean`, if any."""
    if clean is None:
        return metrics
    accuracy = np.atleast_1d(np.array(metrics["accuracy"]))
    accuracy[..., 0] = clean.correct / clean.count
    return metrics | {"accuracy": accuracy}
