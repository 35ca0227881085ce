"""One training step and one evaluation step, as pure functions of one device."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax import losses, optimizers, prng
from cnnjax.metrics import Metrics
from cnnjax.state import TrainState

# What a training step says of its batch.
METRICS = ("loss", "cross_entropy", "l2", "accuracy", "grad_norm")

Batch = Mapping[str, jax.Array]
LossFn = Callable[[jax.Array, jax.Array], jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
EvalStep = Callable[[Any, Batch], Metrics]


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    loss_fn: LossFn,
    l1: float = 0.0,
    l2: float = 0.0,
    penalised: Sequence[str] = (),
    ema_decay: float = 0.0,
    axis_name: str | None = None,
) -> TrainStep:
    """Returns the function (state, batch) -> (state, metrics) of one update.

    The batch is this device's part. Gradients are of the mean loss over the examples of
    all devices along `axis_name`; the gradients of penalties are added in `tx`.

    Args:
        model: a network of `cnnjax.models`.
        tx: from `optimizers.make_optimizer`.
        loss_fn: (logits, labels) -> loss of each example [batch].
        l1: weight of the L1 penalty, for the reported loss.
        l2: weight of the L2 penalty, likewise.
        penalised: the layers they are of.
        ema_decay: of the moving average of the parameters; 0 keeps none.
        axis_name: the mapped axis to sum over, or None on a single device.

    Returns:
        A pure function. Its metrics are float32 []: `loss` (cross_entropy and
        penalties), `cross_entropy`, `l2`, `accuracy` (of the logits that the loss was
        taken of) and `grad_norm`, all of the parameters before the update.
    """

    def train_step(
        state: TrainState, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        dropout = prng.from_seed(state.seed, prng.DROPOUT)
        keys = prng.at_positions(dropout, batch["position"])
        count = _sum_over(axis_name, jnp.sum(batch["mask"]))

        def mean_loss(params: Any) -> tuple[jax.Array, Metrics]:
            logits = _logits(model, params, batch["image"], keys)
            per_example = loss_fn(logits, batch["label"])
            sums = Metrics.of_batch(per_example, logits, batch["label"], batch["mask"])
            return sums.loss / count, sums

        grads, sums = jax.grad(mean_loss, has_aux=True)(state.params)
        grads, sums = _sum_over(axis_name, (grads, sums))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        ema_params = state.ema_params
        if ema_decay:
            ema_params = optimizers.update_ema(ema_params, params, step, ema_decay)

        cross_entropy = sums.loss / count
        penalty = losses.l2_penalty(state.params, penalised, l2)
        metrics = {
            "loss": cross_entropy
            + penalty
            + losses.l1_penalty(state.params, penalised, l1),
            "cross_entropy": cross_entropy,
            "l2": penalty,
            "accuracy": sums.correct / count,
            "grad_norm": optax.tree.norm(grads),
        }
        state = dataclasses.replace(
            state, step=step, params=params, opt_state=opt_state, ema_params=ema_params
        )
        return state, metrics

    return train_step


def make_multi_step(
    train_step: TrainStep,
    make_batch: Callable[[jax.Array, Batch, jax.Array, jax.Array], Batch],
) -> Callable[
    [TrainState, Batch, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]
]:
    """Returns the function (state, chunk, data, count) of several updates in a loop.

    The number of updates is an argument, so that one program does one or a hundred:
    the bytes do not depend on where a run was stopped and resumed.

    Args:
        train_step: from `make_train_step`.
        make_batch: (seed, data, index, position) -> this device's part of a batch.

    Returns:
        A pure function. `chunk` holds index int32 and position uint32,
        [batch, capacity]; `data` is what `make_batch` takes; `count` is int32 [], at
        most the capacity. Its metrics are those of `train_step`, [capacity], with zeros
        after the first `count`.
    """

    def multi_step(
        state: TrainState, chunk: Batch, data: Batch, count: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def one(
            i: jax.Array, carry: tuple[TrainState, dict[str, jax.Array]]
        ) -> tuple[TrainState, dict[str, jax.Array]]:
            state, history = carry
            index, position = chunk["index"][:, i], chunk["position"][:, i]
            batch = make_batch(state.seed, data, index, position)
            state, metrics = train_step(state, batch)
            kept = {k: history[k].at[i].set(v) for k, v in metrics.items()}
            return state, kept

        capacity = chunk["index"].shape[1]
        history = {name: jnp.zeros(capacity) for name in METRICS}
        return jax.lax.fori_loop(0, count, one, (state, history))

    return multi_step


def make_eval_step(
    model: nn.Module,
    *,
    loss_fn: LossFn,
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    top_k: int = 1,
    num_views: int = 1,
    axis_name: str | None = None,
) -> EvalStep:
    """Returns the function (params, batch) -> Metrics, with dropout off.

    With several views of a picture, loss and prediction are those of the mean of their
    softmax outputs, as in cuda-convnet's multiview test.

    Args:
        model: a network of `cnnjax.models`.
        loss_fn: (logits, labels) -> loss of each example [batch].
        preprocess: from the batch's images to what the network is fed; None where the
            images are that already.
        top_k: a prediction is right when the label is among the first `top_k`.
        num_views: of each picture; with more than one, `preprocess` gives
            [num_views, batch, ...].
        axis_name: the mapped axis to sum over, or None on a single device.
    """

    def eval_step(params: Any, batch: Batch) -> Metrics:
        images = batch["image"] if preprocess is None else preprocess(batch["image"])
        if num_views == 1:
            logits = _logits(model, params, images, None)
        else:
            views = jax.lax.map(lambda x: _logits(model, params, x, None), images)
            logits = losses.log_mean_softmax(views)
        per_example = loss_fn(logits, batch["label"])
        sums = Metrics.of_batch(
            per_example, logits, batch["label"], batch["mask"], top_k
        )
        return _sum_over(axis_name, sums)

    return eval_step


def _logits(
    model: nn.Module, params: Any, images: jax.Array, keys: jax.Array | None
) -> jax.Array:
    logits = model.apply({"params": params}, images, dropout_keys=keys)
    return cast(jax.Array, logits)


def _sum_over(axis_name: str | None, tree: Any) -> Any:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)
