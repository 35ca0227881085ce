"""The machine's own limits: matrix products and memory bandwidth."""

import jax
import jax.numpy as jnp

from speed import sizes
from speed.timing import Case


def gemm() -> Case:
    """Returns a product of two square float32 matrices, of 2 n^3 operations.

    XLA computes it on the first device; on a CPU this uses all cores.
    """
    n = sizes.here().matrix
    a, b = jax.random.normal(jax.random.key(0), (2, n, n))
    # Full float32, although JAX's default on a GPU would be TF32.
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    return Case(
        "matrix product", lambda: product(a, b).block_until_ready(), flops=2 * n**3
    )


def stream() -> Case:
    """Returns a = b + 2 c over arrays larger than the caches: two reads, one write."""
    size = sizes.here().stream_bytes // 4
    b, c = jnp.ones(size), jnp.full(size, 0.5)
    triad = jax.jit(lambda b, c: b + 2 * c)
    return Case(
        "memory (triad)", lambda: triad(b, c).block_until_ready(), bytes=3 * 4 * size
    )
