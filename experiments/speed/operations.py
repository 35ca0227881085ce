"""Cases: this project's own operations, and the standard ones that they replace."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from cnnjax.ops import conv, lrn, pool
from speed.timing import Case


def cases(batch_size: int) -> tuple[list[Case], list[tuple[str, str]]]:
    """Returns the cases, and the pairs (own operation, standard one) to compare.

    Each runs forward and backward on the first device, at the sizes of CifarCNN.
    """

    def plain_pool(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")

    def plain_lrn(x: jax.Array) -> jax.Array:
        energy = jax.lax.reduce_window(
            x * x, 0.0, jax.lax.add, (1, 1, 1, 9), (1, 1, 1, 1), "SAME"
        )
        return x / (1.0 + 0.001 / 9 * energy) ** 0.75

    def plain_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def in_scan(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.map(lambda x: conv.conv(x, kernel), x[None])[0]

    own_pool = partial(pool.max_pool, window=(3, 3), strides=(2, 2))
    own_lrn = partial(
        lrn.local_response_normalization, depth_radius=4, alpha=0.001 / 9, beta=0.75
    )
    large, small = (batch_size, 24, 24, 64), (batch_size, 12, 12, 64)
    kernel = (5, 5, 64, 64)
    found = [
        _gradient_case("pool 3x3/2", own_pool, [large]),
        _gradient_case("nn.max_pool 3x3/2", plain_pool, [large]),
        _gradient_case("LRN", own_lrn, [small]),
        _gradient_case("LRN by reduce_window and **", plain_lrn, [small]),
        _gradient_case("conv 5x5", conv.conv, [small, kernel]),
        _gradient_case("lax.conv 5x5", plain_conv, [small, kernel]),
        _gradient_case("conv 5x5 in a scan", in_scan, [small, kernel]),
    ]
    pairs = [
        ("pool 3x3/2", "nn.max_pool 3x3/2"),
        ("LRN", "LRN by reduce_window and **"),
        ("conv 5x5", "lax.conv 5x5"),
        ("conv 5x5 in a scan", "conv 5x5"),
    ]
    return found, pairs


def _gradient_case(
    name: str, function: Callable[..., jax.Array], shapes: list[tuple[int, ...]]
) -> Case:
    keys = jax.random.split(jax.random.key(0), len(shapes) + 1)
    arguments = [
        jax.random.normal(key, shape)
        for key, shape in zip(keys[1:], shapes, strict=True)
    ]
    out = jax.eval_shape(function, *arguments)
    cotangent = jax.random.normal(keys[0], out.shape)

    @jax.jit
    def both(*arguments: jax.Array) -> Any:
        value, pull = jax.vjp(function, *arguments)
        return value, pull(cotangent)

    return Case(
        name, lambda: jax.block_until_ready(both(*arguments)), images=shapes[0][0]
    )
