"""Cases: this project's own operations, and the standard ones that they replace."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.ops import conv, lrn, pool
from speed import plain_flax
from speed.timing import Case


def cases(batch_size: int) -> tuple[list[Case], list[tuple[str, str]]]:
    """Returns the cases, and the pairs (own operation, standard one) to compare.

    Each runs forward and backward on the first device, at the sizes of CifarCNN. Its
    first layer needs no gradient for the pictures; their three channels are few for a
    GPU's matrix units, so that a fourth one of zeros may pay.
    """

    def plain_pool(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")

    def plain_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def in_scan(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.map(lambda x: conv.conv(x, kernel), x[None])[0]

    def padded_conv1(x: jax.Array, kernel: jax.Array) -> jax.Array:
        more = (0, 1)
        x = jnp.pad(jax.lax.stop_gradient(x), ((0, 0), (0, 0), (0, 0), more))
        return conv.conv(x, jnp.pad(kernel, ((0, 0), (0, 0), more, (0, 0))))

    own_pool = partial(pool.max_pool, window=(3, 3), strides=(2, 2))
    own_lrn = partial(
        lrn.local_response_normalization, depth_radius=4, alpha=0.001 / 9, beta=0.75
    )
    large, small = (batch_size, 24, 24, 64), (batch_size, 12, 12, 64)
    kernel = (5, 5, 64, 64)
    pictures = [(batch_size, 24, 24, 3), (5, 5, 3, 64)]
    timed = partial(gradient_case, images=batch_size)
    found = [
        timed("pool 3x3/2", own_pool, [large]),
        timed("nn.max_pool 3x3/2", plain_pool, [large]),
        timed("LRN", own_lrn, [small]),
        timed("LRN by reduce_window and **", plain_flax.lrn, [small]),
        timed("conv 5x5", conv.conv, [small, kernel]),
        timed("lax.conv 5x5", plain_conv, [small, kernel]),
        timed("conv 5x5 in a scan", in_scan, [small, kernel]),
        timed("conv1", conv1, pictures),
        timed("conv1 padded to 4 channels", padded_conv1, pictures),
    ]
    pairs = [
        ("pool 3x3/2", "nn.max_pool 3x3/2"),
        ("LRN", "LRN by reduce_window and **"),
        ("conv 5x5", "lax.conv 5x5"),
        ("conv 5x5 in a scan", "conv 5x5"),
        ("conv1 padded to 4 channels", "conv1"),
    ]
    return found, pairs


def conv1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the first layer's convolution, without a gradient for its pictures.

    It maps `x` [batch, height, width, in] and `kernel` [height, width, in, out] to
    [batch, height, width, out], as `conv.conv`.
    """
    return conv.conv(jax.lax.stop_gradient(x), kernel)


def gradient_case(
    name: str,
    function: Callable[..., jax.Array],
    shapes: Sequence[tuple[int, ...]],
    images: int = 0,
) -> Case:
    """Returns a case of `function` forward and backward, on standard normal noise.

    Args:
        name: of the case.
        function: arrays -> array.
        shapes: of its arguments.
        images: how many it processes, or 0.
    """
    keys = jax.random.split(jax.random.key(0), len(shapes) + 1)
    arguments = [
        jax.random.normal(key, shape)
        for key, shape in zip(keys[1:], shapes, strict=True)
    ]
    out = jax.eval_shape(function, *arguments)
    cotangent = jax.random.normal(keys[0], out.shape)

    # An argument, as XLA might compute what depends on constants alone only once.
    @jax.jit
    def both(cotangent: jax.Array, *arguments: jax.Array) -> Any:
        value, pull = jax.vjp(function, *arguments)
        return value, pull(cotangent)

    def run() -> None:
        jax.block_until_ready(both(cotangent, *arguments))

    return Case(name, run, images=images)
