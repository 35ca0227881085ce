"""Splits the work on a batch into chunks that fit in a CPU core's cache."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


def chunk_size(batch: int, image_bytes: int, cache_bytes: int) -> int:
    """Returns the number of images of a chunk, which fit in `cache_bytes`, or 1.

    It is the largest divisor of `batch`, unless chunks would then be of less than a
    third of what fits, as in a batch of 127; then all but the last are nearly full.

    Args:
        batch: number of images, at least 1.
        image_bytes: bytes that the work on one image reads and writes.
        cache_bytes: bytes that the work on a chunk of several images may touch.
    """
    most = max(1, min(batch, cache_bytes // image_bytes))
    divisor = max(n for n in range(1, most + 1) if batch % n == 0)
    return divisor if 3 * divisor > most else -(-batch // -(-batch // most))


def split(x: jax.Array, size: int) -> jax.Array:
    """Reshapes [batch, ...] to [batch / size, size, ...]."""
    return x.reshape(-1, size, *x.shape[1:])


def map_chunks(
    f: Callable[[jax.Array], T], x: jax.Array, size: int, filler: jax.Array
) -> T:
    """Returns `f(x)`, computed chunk by chunk.

    The arrays that take the results are first filled with a scalar that is known as
    late as `x`. `jax.lax.map` fills them with zeros, and XLA does that for all loops of
    a step as the step starts, for one device after the other: the first to compute then
    waits for the others, up to 2 ms of 42 (a step of CifarCNN on two cores).

    Args:
        f: maps [size, ...] to arrays [size, ...], and each image independently.
        x: [batch, ...].
        size: number of images in a chunk, at most `batch`. Where it is no divisor, the
            last chunk begins earlier, and some images are computed twice.
        filler: any scalar that depends on all that `f(x)` depends on.
    """
    f = jax.jit(f)  # so that it is traced once, for its shapes and for the loop
    out: T = jax.tree.map(
        lambda y: jnp.full((len(x), *y.shape[1:]), filler, y.dtype),
        jax.eval_shape(f, x[:size]),
    )

    def one_chunk(i: jax.Array, out: T) -> T:
        # Both slices move a start that is too late to the last one possible.
        part = f(jax.lax.dynamic_slice_in_dim(x, i * size, size))
        write = partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
        return jax.tree.map(lambda y, new: write(y, new, i * size), out, part)

    return jax.lax.fori_loop(0, -(-len(x) // size), one_chunk, out)


def sum_chunks(
    f: Callable[..., jax.Array], arrays: Sequence[jax.Array], size: int
) -> jax.Array:
    """Returns the sum of `f(*parts)` over all chunks, in the dtype that `f` returns.

    Args:
        f: maps the parts of `arrays` in one chunk, each [size, ...], to an array.
        arrays: each [batch, ...].
        size: number of images in a chunk, at most `batch`; the last may have fewer.
    """
    whole = len(arrays[0]) // size * size
    # Of no images: zeros that differ over devices where `shard_map` says that x does.
    zero = f(*(x[:0] for x in arrays))
    parts = [split(x[:whole], size) for x in arrays]
    total, _ = jax.lax.scan(lambda total, part: (total + f(*part), None), zero, parts)
    return total + f(*(x[whole:] for x in arrays)) if len(arrays[0]) > whole else total
