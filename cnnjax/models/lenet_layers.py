"""The layers of 1998: squashing, sub-sampling and partial connections."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from cnnjax.ops.conv import conv

# Table 1 of the paper: a row for each map of S2, a column for each map of C3.
_TABLE_1 = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""
CONNECTIONS = np.array([[mark == "X" for mark in row] for row in _TABLE_1.split()])
"""bool [6, 16]: which maps of S2 (rows) each map of C3 (columns) sees; 60 in all."""


def squash(x: jax.Array) -> jax.Array:
    """Returns 1.7159 * tanh(2/3 x): f(1) = 1 and f(-1) = -1, where it bends most.

    Args:
        x: float [...].

    Returns:
        same shape and dtype as `x`, in (-1.7159, 1.7159).

    Source: LeCun et al. 1998, equation 6 and appendix A.
    """
    return 1.7159 * jnp.tanh(2 / 3 * x)


def fan_in_uniform(fan_in: int | np.ndarray) -> Callable[..., jax.Array]:
    """Returns the paper's initialiser, for weights and biases: +-2.4 / fan_in, uniform.

    Args:
        fan_in: number of inputs of a unit, the bias not counted; an array has one
            number for each entry of the parameter's last axis.

    Source: LeCun et al. 1998, appendix A.
    """

    def init(
        key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> jax.Array:
        bound = jnp.asarray(np.broadcast_to(2.4 / fan_in, shape), dtype)
        return jax.random.uniform(key, shape, dtype, -1, 1) * bound

    return init


class SubSampling(nn.Module):
    """The paper's sub-sampling layer: squash(coefficient * sum over 2x2 + bias)."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, maps] to [batch, height/2, width/2, maps]."""
        # A unit has four inputs, which share their coefficient.
        init = fan_in_uniform(4)
        batch, height, width, maps = x.shape
        coefficient = self.param("coefficient", init, (maps,)).astype(self.dtype)
        bias = self.param("bias", init, (maps,)).astype(self.dtype)
        sums = x.reshape(batch, height // 2, 2, width // 2, 2, maps).sum((2, 4))
        return squash(
            sums * coefficient.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)
        )

    def multiply_adds(self, image_shape: tuple[int, ...]) -> int:
        """Returns one a unit: its coefficient's; `image_shape` as in `layers.Conv`."""
        height, width, maps = image_shape
        return height // 2 * (width // 2) * maps


class PartialConv(nn.Module):
    """5x5 "VALID" convolution whose maps see only some of the inputs (layer C3).

    Only the connections that exist have weights: `kernel` is float32
    [5, 5, connections], in the order of `np.nonzero(CONNECTIONS)`.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, 6] to [batch, height - 4, width - 4, 16]."""
        inputs, maps = np.nonzero(CONNECTIONS)
        fan_in = 25 * CONNECTIONS.sum(axis=0)
        weights = self.param("kernel", fan_in_uniform(fan_in[maps]), (5, 5, len(maps)))
        bias = self.param("bias", fan_in_uniform(fan_in), (CONNECTIONS.shape[1],))
        kernel = jnp.zeros((5, 5, *CONNECTIONS.shape), self.dtype)
        kernel = kernel.at[:, :, inputs, maps].set(
            weights.astype(self.dtype), unique_indices=True
        )
        y = conv(x.astype(self.dtype), kernel, "VALID")
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)

    def multiply_adds(self, image_shape: tuple[int, ...]) -> int:
        """Returns height' * width' * 25 * connections, as `layers.Conv` has it."""
        height, width, _ = image_shape
        return (height - 4) * (width - 4) * 25 * int(CONNECTIONS.sum())
