"""Learning-rate schedules, optax chains and the moving average of the weights."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from cnnjax.losses import Penalty

SCHEDULES = ("constant", "exponential", "linear", "cosine")
OPTIMIZERS = ("adam", "adamw", "sgd", "momentum", "adagrad", "muon", "muon_conv")

NO_PENALTY = Penalty()

# Muon's updates are orthogonal matrices. Scaled by this and the square root of their
# longer side, their entries are as large as Adam's, so one learning rate suits both
# (Liu et al. 2025, "Muon is Scalable for LLM Training", section 2.2).
MUON_RMS = 0.2


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool,
    warmup_steps: int = 0,
) -> optax.Schedule:
    """Returns the learning rate as a function of the number of completed updates.

    exponential: learning_rate * decay_rate ** (step / decay_steps), with the exponent
    rounded down if `staircase`, as in `tf.train.exponential_decay`. linear: from
    `learning_rate` to `learning_rate * decay_rate` over `decay_steps` updates. cosine:
    the same along half a cosine. All are multiplied by (step + 1) / warmup_steps while
    step < warmup_steps. `decay_steps` and the exponential `decay_rate` are positive.

    Raises:
        ValueError: `name` is not one of `SCHEDULES`.

    Example:
        >>> rate = cj.make_schedule(
        ...     "exponential", learning_rate=0.1, decay_steps=1000, decay_rate=0.1,
        ...     staircase=True,
        ... )
        >>> [round(float(rate(step)), 4) for step in (0, 999, 1000, 2000)]
        [0.1, 0.1, 0.01, 0.001]
    """
    match name:
        case "constant":
            decay = optax.constant_schedule(learning_rate)
        case "exponential" if staircase:
            stairs = optax.exponential_decay(learning_rate, 1, decay_rate)
            decay = partial(_on_stair, stairs, decay_steps)
        case "exponential":
            decay = optax.exponential_decay(learning_rate, decay_steps, decay_rate)
        case "linear":
            decay = optax.linear_schedule(
                learning_rate, learning_rate * decay_rate, decay_steps
            )
        case "cosine":
            decay = optax.cosine_decay_schedule(learning_rate, decay_steps, decay_rate)
        case _:
            needed = ", ".join(SCHEDULES)
            raise ValueError(f"got schedule {name!r}, need one of {needed}")
    if not warmup_steps:
        return decay
    return lambda step: decay(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def _on_stair(schedule: optax.Schedule, length: int, step: Any) -> Any:
    return schedule(step // length)  # optax's quotient of floats may be one too low


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    penalty: Penalty = NO_PENALTY,
    momentum: float = 0.9,
    weight_decay: float = 0.01,
    output_layer: str = "logits",
) -> optax.GradientTransformation:
    """Returns the optax chain: L2, L1, the optimiser, weight decay, the schedule.

    The gradients of the penalties, l2 * w and l1 * sign(w), are added before the
    optimiser scales them, as if the penalties were part of the loss.

    - adamw: after Adam, every kernel shrinks by learning_rate * weight_decay per update
      (Loshchilov and Hutter 2019).
    - momentum: Nesterov's, with `momentum` in [0, 1).
    - adagrad: its accumulator starts at 0.1, as in TF 1.
    - muon: for the kernels of all layers except `output_layer`, and muon_conv only for
      those of convolutions; Adam with Nesterov momentum updates everything else.

    Raises:
        ValueError: `name` is not one of `OPTIMIZERS`.

    Example:
        >>> tx = cj.make_optimizer("sgd", lambda step: 0.5)
        >>> params = {"w": jnp.array([1.0, 2.0])}
        >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
        >>> updates["w"].tolist()
        [-0.5, -0.5]
    """
    match name:
        case "adam" | "adamw":
            scale = optax.scale_by_adam()
        case "sgd":
            scale = optax.identity()
        case "momentum":
            scale = optax.trace(decay=momentum, nesterov=True)
        case "adagrad":
            scale = optax.scale_by_rss(initial_accumulator_value=0.1)
        case "muon" | "muon_conv":
            ndim = 2 if name == "muon" else 4
            read = partial(_as_matrices, ndim=ndim, output_layer=output_layer)
            # optax's Muon applies a learning rate and a sign itself; -1 undoes both.
            scale = optax.contrib.muon(
                -1.0, consistent_rms=MUON_RMS, muon_weight_dimension_numbers=read
            )
        case _:
            needed = ", ".join(OPTIMIZERS)
            raise ValueError(f"got optimizer {name!r}, need one of {needed}")
    chain = []
    if penalty.l2:
        chain.append(optax.add_decayed_weights(penalty.l2, mask=penalty.is_penalised))
    if penalty.l1:
        chain.append(optax.masked(_add_signs(penalty.l1), penalty.is_penalised))
    chain.append(scale)
    if name == "adamw":
        chain.append(optax.add_decayed_weights(weight_decay, NO_PENALTY.is_penalised))
    return optax.chain(*chain, optax.scale_by_learning_rate(schedule))


def _add_signs(weight: float) -> optax.GradientTransformation:
    return optax.stateless(
        lambda updates, params: jax.tree.map(
            lambda g, w: g + weight * jnp.sign(w), updates, params
        )
    )


def _as_matrices(params: Any, ndim: int, output_layer: str) -> Any:
    """Returns how Muon reads each hidden kernel of at least `ndim` axes as a matrix."""

    def of_leaf(path: Any, leaf: jax.Array) -> Any:
        layer = path[-2].key if len(path) > 1 else ""
        if leaf.ndim < ndim or layer == output_layer:
            return None
        last = leaf.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(last)), last)

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def update_ema(ema_params: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Returns the moving average of the parameters after an update.

    ema + (1 - d) * (params - ema), d = min(decay, (1 + step) / (10 + step)): TF's
    `ExponentialMovingAverage(decay, num_updates=step)`, whose ramp lets the average
    follow quickly at first. `step` is the number of updates, int32 [], including the
    one that gave `params`; `decay` is in (0, 1). Integers are taken as they are.
    """
    rate = 1 - jnp.minimum(jnp.float32(decay), (1.0 + step) / (10.0 + step))

    def of_leaf(new: jax.Array, average: jax.Array) -> jax.Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return optax.incremental_update(new, average, rate).astype(average.dtype)

    return jax.tree.map(of_leaf, params, ema_params)
