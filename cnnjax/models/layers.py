"""The convolution layer that the networks share, and how their weights are drawn."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.ops import conv

Initializer = jax.nn.initializers.Initializer


def drawn_flat(draw: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns an initialiser with the values of `draw`, drawn along one axis.

    XLA compiles that for a CPU in a fifth of the 1.7 s that several short axes take.
    `draw` maps (key, shape, dtype) to values that depend on nothing of the shape but
    their number, as those of a fixed distribution do.
    """
    return lambda key, shape, dtype=jnp.float32: draw(
        key, (math.prod(shape),), dtype
    ).reshape(shape)


class Conv(nn.Module):
    """Convolution with stride 1 and a bias that is added after `between`.

    out = between(x * kernel) + bias. Max-pooling commutes with adding a bias to each
    channel and with any increasing activation, so pooling as `between` saves work and
    gives the same result; the parameters stay those of the plain layer.

    Attributes:
        features: number of output channels.
        kernel_size: height and width, odd for "SAME".
        kernel_init: initialiser of the kernel [height, width, in, features].
        bias_init: initialiser of the bias [features].
        padding: "SAME" or "VALID".
        between: applied to the convolution's output before the bias is added.
        dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_size: tuple[int, int]
    kernel_init: Initializer
    bias_init: Initializer
    padding: str = "SAME"
    between: Callable[[jax.Array], jax.Array] | None = None
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, in] to [batch, height', width', features]."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        y = conv.conv(x.astype(self.dtype), kernel.astype(self.dtype), self.padding)
        if self.between is not None:
            y = self.between(y)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)

    @nn.nowrap
    def unpooled(self, x: jax.Array) -> jax.Array:
        """Returns the output that a call without `between` would have."""
        weights = self.variables["params"]
        kernel = weights["kernel"].astype(self.dtype)
        y = conv.conv(x.astype(self.dtype), kernel, self.padding)
        return y + weights["bias"].astype(self.dtype).reshape(1, 1, 1, -1)

    def multiply_adds(self, image_shape: tuple[int, ...]) -> int:
        """Returns height' * width' * kernel_height * kernel_width * in * features.

        `image_shape` is (height, width, in) of one example.
        """
        height, width, channels = image_shape
        kernel_height, kernel_width = self.kernel_size
        if self.padding == "VALID":
            height, width = height - kernel_height + 1, width - kernel_width + 1
        return height * width * kernel_height * kernel_width * channels * self.features
