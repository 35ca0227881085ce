"""All that a run changes as it trains, in one tree of arrays."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import prng


@flax.struct.dataclass
class TrainState:
    """The parameters and what is needed to go on from them.

    Attributes:
        step: number of updates done, int32 [].
        seed: of the run, uint32 []; every key of every step derives from it.
        params: the network's parameters, a tree of float32 arrays.
        opt_state: the state of the optax chain.
        ema_params: the moving average of `params`, or None where none is kept.
    """

    step: jax.Array
    seed: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    seed: int | jax.Array,
    image_shape: tuple[int, int, int],
    ema: bool = False,
) -> TrainState:
    """Returns the state before the first update; a pure function of its arguments.

    Args:
        model: a network of `cnnjax.models`.
        tx: the optax chain.
        seed: in [0, 2**32).
        image_shape: (height, width, channels) of what the network is fed.
        ema: whether a moving average of the parameters is kept; it starts at them.
    """
    seed = jnp.asarray(seed, jnp.uint32)
    images = jnp.zeros((1, *image_shape), jnp.float32)
    params = model.init(prng.from_seed(seed, prng.PARAMS), images)["params"]
    return TrainState(
        # An array and not a Python integer, which is weakly typed and compiles twice.
        step=jnp.zeros((), jnp.int32),
        seed=seed,
        params=params,
        opt_state=tx.init(params),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    )


def num_params(params: Any) -> int:
    """Returns the number of trainable numbers in a tree of arrays."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
