"""Learning-rate schedules, optax chains and the moving average of the weights."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnnjax import losses

SCHEDULES = ("constant", "exponential", "linear", "cosine")
OPTIMIZERS = ("adam", "sgd", "momentum", "adagrad")


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool,
) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates done.

    exponential: learning_rate * decay_rate ** (step / decay_steps), the exponent
    rounded down when `staircase`, as `tf.train.exponential_decay`. linear: from
    `learning_rate` to `learning_rate * decay_rate` over `decay_steps`. cosine: the same
    along half a cosine.

    Args:
        name: one of `SCHEDULES`.
        learning_rate: at step 0, positive.
        decay_steps: in updates, positive.
        decay_rate: the factor reached after `decay_steps`.
        staircase: of the exponential only.

    Raises:
        ValueError: there is no such schedule.
    """
    match name:
        case "constant":
            return optax.constant_schedule(learning_rate)
        case "exponential":
            return optax.exponential_decay(
                learning_rate, decay_steps, decay_rate, staircase=staircase
            )
        case "linear":
            return optax.linear_schedule(
                learning_rate, learning_rate * decay_rate, decay_steps
            )
        case "cosine":
            return optax.cosine_decay_schedule(learning_rate, decay_steps, decay_rate)
    raise ValueError(f"got schedule {name!r}, need one of {', '.join(SCHEDULES)}")


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float = 0.0,
    l2: float = 0.0,
    penalised: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Returns the optax chain: L2 on the gradient, the optimiser, the schedule.

    The gradient of the L2 penalty, l2 * w, is added before the optimiser scales it, as
    it is when the penalty stands in the loss; this is not AdamW.

    Args:
        name: one of `OPTIMIZERS`; adagrad's accumulator starts from 0.1, as TF 1's.
        schedule: step -> learning rate.
        momentum: of "momentum" only, which is Nesterov's; in [0, 1).
        l2: weight of the penalty l2 * sum(w**2) / 2.
        penalised: names of the layers whose kernels are penalised.

    Raises:
        ValueError: there is no such optimiser.
    """
    match name:
        case "adam":
            scale = optax.scale_by_adam()
        case "sgd":
            scale = optax.identity()
        case "momentum":
            scale = optax.trace(decay=momentum, nesterov=True)
        case "adagrad":
            scale = optax.scale_by_rss(initial_accumulator_value=0.1)
        case _:
            needed = ", ".join(OPTIMIZERS)
            raise ValueError(f"got optimizer {name!r}, need one of {needed}")
    chain = [scale, optax.scale_by_learning_rate(schedule)]
    if l2:
        decay = optax.add_decayed_weights(
            l2, mask=lambda params: losses.is_penalised(params, penalised)
        )
        chain.insert(0, decay)
    return optax.chain(*chain)


def update_ema(ema_params: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Returns the moving average after the update that made `params`.

    ema + (1 - d) * (params - ema), d = min(decay, (1 + step) / (10 + step)): TF's
    `ExponentialMovingAverage(decay, num_updates=step)`, whose ramp lets the average
    follow quickly at first.

    Args:
        ema_params: the average so far.
        params: the parameters after the update.
        step: number of updates done, this one included, int32 [].
        decay: in (0, 1).
    """
    ramp = (1.0 + step) / (10.0 + step)
    return optax.incremental_update(
        params, ema_params, 1 - jnp.minimum(jnp.float32(decay), ramp)
    )
