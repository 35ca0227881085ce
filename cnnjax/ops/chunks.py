"""Work on a batch in pieces that stay in a CPU core's cache."""

from collections.abc import Callable
from typing import TypeVar

import jax

T = TypeVar("T")


def chunk_size(batch: int, image_bytes: int, cache_bytes: int) -> int:
    """Returns how many images to take at a time: a divisor of `batch`, at least 1.

    Args:
        batch: number of images, at least 1.
        image_bytes: what the work on one image reads and writes.
        cache_bytes: what one chunk may read and write, if it is more than one image.
    """
    most = max(1, min(batch, cache_bytes // image_bytes))
    return max(n for n in range(1, most + 1) if batch % n == 0)


def split(x: jax.Array, size: int) -> jax.Array:
    """Returns [batch, ...] as [batch / size, size, ...]."""
    return x.reshape(-1, size, *x.shape[1:])


def map_chunks(f: Callable[[jax.Array], T], x: jax.Array, size: int) -> T:
    """Returns `f(x)` for an `f` that treats each image by itself, chunk by chunk.

    Args:
        f: from [size, ...] to arrays that lead with `size`.
        x: [batch, ...].
        size: images in a chunk, a divisor of `batch`.
    """
    out = jax.lax.map(f, split(x, size))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), out)
