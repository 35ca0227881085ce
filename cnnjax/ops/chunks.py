"""Splits the work on a batch into chunks that fit in a CPU core's cache."""

from collections.abc import Callable
from typing import TypeVar

import jax

T = TypeVar("T")


def chunk_size(batch: int, image_bytes: int, cache_bytes: int) -> int:
    """Returns the largest divisor of `batch` whose images fit in `cache_bytes`, or 1.

    Args:
        batch: number of images, at least 1.
        image_bytes: bytes that the work on one image reads and writes.
        cache_bytes: bytes that the work on a chunk of several images may touch.
    """
    most = max(1, min(batch, cache_bytes // image_bytes))
    return max(n for n in range(1, most + 1) if batch % n == 0)


def split(x: jax.Array, size: int) -> jax.Array:
    """Reshapes [batch, ...] to [batch / size, size, ...]."""
    return x.reshape(-1, size, *x.shape[1:])


def map_chunks(f: Callable[[jax.Array], T], x: jax.Array, size: int) -> T:
    """Returns `f(x)`, computed chunk by chunk.

    Args:
        f: maps [size, ...] to arrays [size, ...], and each image independently.
        x: [batch, ...].
        size: number of images in a chunk, a divisor of `batch`.
    """
    out = jax.lax.map(f, split(x, size))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), out)
