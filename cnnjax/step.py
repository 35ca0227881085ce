"""The training step and the evaluation step, as pure functions on one device."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from cnnjax import losses, prng
from cnnjax.data import augment
from cnnjax.metrics import Metrics
from cnnjax.models.forward import Variables, forward
from cnnjax.optimizers import update_ema
from cnnjax.recipe import Recipe
from cnnjax.state import TrainState

# The metrics that a training step returns.
METRICS = ("loss", "cross_entropy", "l2", "accuracy", "grad_norm")

# Arrays of at most so many elements are joined before the devices sum them: a copy
# takes less time than waiting for each other once more.
SMALL = 1 << 17

Batch = Mapping[str, jax.Array]
StepMetrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
EvalStep = Callable[[Variables, Batch], Metrics]


def make_train_step(recipe: Recipe, axis_name: str | None = None) -> TrainStep:
    """Returns the pure function (state, batch) -> (state, metrics) of one update.

    The batch is this device's part. Gradients are those of the mean loss over the
    examples of all devices along the mapped axis `axis_name`, or of this device alone
    if it is None; `recipe.tx` adds the gradients of the penalties.

    The metrics are float32 [], all of the parameters before the update: `loss`
    (cross-entropy and penalties), `cross_entropy`, `l2`, `accuracy` (with dropout, as
    the loss) and `grad_norm` (without the penalties).

    Example:
        >>> data, recipe = cj.load_dataset("digits"), cj.make_recipe(cj.MLP())
        >>> state = cj.init_state(recipe, data.image_shape, seed=0)
        >>> step = jax.jit(cj.make_train_step(recipe))
        >>> for batch in cj.batches(
        ...     data.train, recipe, seed=0, batch_size=50, steps=range(3)
        ... ):
        ...     state, metrics = step(state, batch)
        >>> int(state.step), sorted(metrics)
        (3, ['accuracy', 'cross_entropy', 'grad_norm', 'l2', 'loss'])
    """
    model, penalty, decay = recipe.model, recipe.penalty, recipe.ema_decay

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        dropout = prng.from_seed(state.seed, prng.DROPOUT)
        keys = prng.at_positions(dropout, batch["position"])
        key = jax.random.fold_in(prng.stream(dropout, "whole batch"), state.step)
        # Those of padding too: to sum the mask over the devices here would have them
        # wait for each other twice in a step, 5% of it (CifarCNN, two cores).
        rows = len(batch["mask"]) * (jax.lax.axis_size(axis_name) if axis_name else 1)

        def loss_per_row(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            variables = {**state.variables, "params": params}
            logits, own = forward(
                model, variables, batch["image"], keys, axis_name, key
            )
            per_example = recipe.loss_fn(logits, batch["label"])
            sums = Metrics.of_batch(per_example, logits, batch["label"], batch["mask"])
            return sums.loss / rows, (sums, own or None)

        grads, (sums, collections) = jax.grad(loss_per_row, has_aux=True)(state.params)
        grads, sums = _sum_over(axis_name, (grads, sums))
        count = sums.count
        # Before they are scaled: XLA would write the scaled ones to memory for this.
        squares = sum(map(losses.sum_of_squares, jax.tree.leaves(grads)))
        scale = rows / count  # exactly 1 where nothing is padding
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        updates, opt_state = recipe.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        averages = state.ema_params, state.ema_collections
        if decay:
            averages = update_ema(averages, (params, collections), step, decay)

        cross_entropy = sums.loss / count
        l2 = penalty.l2_loss(state.params)
        metrics = {
            "loss": cross_entropy + l2 + penalty.l1_loss(state.params),
            "cross_entropy": cross_entropy,
            "l2": l2,
            "accuracy": sums.correct / count,
            "grad_norm": scale * jnp.sqrt(squares),
        }
        state = dataclasses.replace(
            state,
            step=step,
            params=params,
            opt_state=opt_state,
            ema_params=averages[0],
            collections=collections,
            ema_collections=averages[1],
        )
        return state, metrics

    return train_step


def make_multi_step(
    train_step: TrainStep,
    make_batch: Callable[[jax.Array, Batch, jax.Array, jax.Array], Batch],
) -> Callable[[TrainState, Batch, Batch, jax.Array], tuple[TrainState, StepMetrics]]:
    """Returns the pure function (state, chunk, data, count) of `count` updates.

    The number of updates is an argument, so that one compiled program makes one or a
    hundred: the bytes do not depend on where a run was stopped and resumed.

    `make_batch` maps (seed, data, index, position) to this device's part of a batch.
    `chunk` holds index int32 and position uint32, [batch, capacity]; `count` is int32
    [], at most the capacity. Returns the state and the metrics of `train_step`, each
    [capacity], with zeros after the first `count`.
    """

    def multi_step(
        state: TrainState, chunk: Batch, data: Batch, count: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        def one(
            i: jax.Array, carry: tuple[TrainState, StepMetrics]
        ) -> tuple[TrainState, StepMetrics]:
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
    recipe: Recipe,
    *,
    num_views: int = 1,
    top_k: int = 1,
    axis_name: str | None = None,
    prepared: bool = False,
) -> EvalStep:
    """Returns a function (variables, batch) -> Metrics, with no distortion or dropout.

    `num_views` is 1 for the central crop, otherwise see `augment.views`: loss and
    prediction are then those of the mean of the views' softmax outputs, as in
    cuda-convnet's multiview test. `top_k` is the `k` of `is_among_top`, and `axis_name`
    is the mapped axis to sum over, None on a single device. The images of a batch are
    the data set's, uint8, or with `prepared` the network's preprocessed input.

    Example:
        >>> data, recipe = cj.load_dataset("digits"), cj.make_recipe(cj.MLP())
        >>> state = cj.init_state(recipe, data.image_shape, seed=0)
        >>> batch = {
        ...     "image": data.test.images[:50],
        ...     "label": data.test.labels[:50],
        ...     "mask": np.ones(50, np.float32),
        ... }
        >>> sums = jax.jit(cj.make_eval_step(recipe))(state.variables, batch)
        >>> float(sums.count)
        50.0
    """
    how = recipe.preprocessing
    view = partial(augment.standard_view, preprocessing=how)
    if num_views > 1:
        view = partial(augment.views, preprocessing=how, mirrored=num_views == 10)

    def logits_of(variables: Variables, images: jax.Array) -> jax.Array:
        return forward(recipe.model, variables, images)[0]

    def eval_step(variables: Variables, batch: Batch) -> Metrics:
        images = batch["image"] if prepared else view(batch["image"])
        if num_views == 1:
            logits, loss_fn = logits_of(variables, images), recipe.eval_loss_fn
        else:
            each = jax.lax.map(partial(logits_of, variables), images)
            # Log-probabilities, which a loss other than cross-entropy may not take.
            logits, loss_fn = losses.log_mean_softmax(each), losses.cross_entropy
        per_example = loss_fn(logits, batch["label"])
        sums = Metrics.of_batch(
            per_example, logits, batch["label"], batch["mask"], top_k
        )
        return _sum_over(axis_name, sums)

    return eval_step


def _sum_over(axis_name: str | None, tree: Any) -> Any:
    """Sums the arrays of a tree over the devices, the small ones joined to one.

    The devices of a CPU wait for each other twice for each array, about 0.1 ms.
    """
    if axis_name is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    numbered = dict(enumerate(leaves))
    large = {i: x for i, x in numbered.items() if x.size > SMALL}
    joined, split = ravel_pytree({i: x for i, x in numbered.items() if i not in large})
    joined, large = jax.lax.psum((joined, large), axis_name)
    summed = split(joined) | large
    return jax.tree.unflatten(structure, [summed[i] for i in numbered])
