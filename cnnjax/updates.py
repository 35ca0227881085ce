"""What is trained and how, and the feeding of batches to the compiled step."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from cnnjax import parallel
from cnnjax.clocks import Clocks
from cnnjax.state import TrainState
from cnnjax.step import LossFn, make_eval_step, make_train_step

Batches = Iterator[dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained, and how a step changes it.

    Attributes:
        model: a network of `cnnjax.models`.
        tx: the optax chain, with `schedule` and the gradient of the L2 penalty in it.
        schedule: step -> learning rate, for the log.
        loss_fn: (logits, labels) -> loss of each example.
        l2: weight of the L2 penalty, for the log.
        penalised: the layers whose kernels it is of.
        ema_decay: of the moving average of the parameters; 0 keeps none.
        has_dropout: whether accuracy on a batch takes a pass with dropout off.
    """

    model: nn.Module
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    loss_fn: LossFn
    l2: float
    penalised: Sequence[str]
    ema_decay: float
    has_dropout: bool


class Updater:
    """Feeds batches to the compiled training step, and keeps time."""

    def __init__(
        self, recipe: Recipe, batches: Batches, mesh: Mesh, mode: str, clocks: Clocks
    ) -> None:
        """Compiles nothing yet: that takes the first batch."""
        self._recipe, self._batches, self._clocks = recipe, batches, clocks
        self._mesh, self._mode = mesh, mode
        # On CPU a step that starts before the last one's all-reduce has met can take
        # the thread that it waits for: a deadlock. Waiting costs nothing there.
        self._wait = mesh.devices.flat[0].platform == "cpu"
        self._train_step: Any = None
        self._eval_step: Any = None

    def __call__(
        self, state: TrainState, *, fetch: bool
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state after one more update, and the metrics of its batch.

        With `fetch` they are numbers on the host, and the accuracy is that with dropout
        off, as the chapter prints it.
        """
        with self._clocks.training():
            batch = parallel.put_batch(next(self._batches), self._mesh, self._mode)
        if self._train_step is None:
            self._compile(state, batch)
        clean = None
        if fetch and self._eval_step is not None:
            clean = jax.device_get(self._eval_step(state.params, batch))
        with self._clocks.training():
            state, metrics = self._train_step(state, batch)
            if fetch:
                metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
            elif self._wait:
                jax.block_until_ready(metrics)
        if clean is not None:
            metrics["accuracy"] = float(clean.correct / clean.count)
        return state, metrics

    def _compile(self, state: TrainState, batch: Mapping[str, jax.Array]) -> None:
        recipe = self._recipe
        train_step = make_train_step(
            recipe.model,
            recipe.tx,
            loss_fn=recipe.loss_fn,
            l2=recipe.l2,
            penalised=recipe.penalised,
            ema_decay=recipe.ema_decay,
            axis_name=parallel.AXIS,
        )
        mapped = parallel.compile_step(train_step, self._mesh, self._mode, donate=True)
        self._train_step = self._clocks.compile(mapped, state, batch)
        if recipe.has_dropout:
            eval_step = make_eval_step(
                recipe.model, loss_fn=recipe.loss_fn, axis_name=parallel.AXIS
            )
            mapped = parallel.compile_step(eval_step, self._mesh, self._mode)
            self._eval_step = self._clocks.compile(mapped, state.params, batch)
