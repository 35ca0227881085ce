"""Max pooling whose gradient needs no scatter."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops import chunks

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # before and after the rows, and the columns
CACHE_BYTES = 1 << 20  # half or all of a core's second-level cache on many CPUs
MOST_PLANES = 64  # an array for each value of a window; thousands compile for minutes


def max_pool(
    x: jax.Array, window: Pair, strides: Pair, padding: str = "SAME"
) -> jax.Array:
    """Takes the largest value of each window, separately for each channel.

    out[n, i, j, c] = max_{a, b} x[n, i * strides[0] + a, j * strides[1] + b, c]

    where x has the values around it that `padding` asks for.
    Value and gradient equal those of `flax.linen.max_pool`: of several largest values
    the first in the window, row by row, receives the gradient. NaN yields NaN, and its
    gradient goes anywhere in the window.

    Args:
        x: float [batch, height, width, channels].
        window: height and width in pixels.
        strides: vertical and horizontal stride in pixels.
        padding: "SAME" (-inf around, height' = ceil(height / strides[0])) or "VALID".

    Returns:
        [batch, height', width', channels], same dtype as `x`.

    Raises:
        ValueError: `x` has another shape or dtype, a window or stride is below 1, the
            padding is unknown, or the window is larger than the images with "VALID".

    Source: the tie rule is that of XLA's select-and-scatter and of cuDNN.
    """
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"max_pool got x of {x.dtype}{list(x.shape)}, needs float [batch, height, "
            "width, channels]: convert or reshape it"
        )
    for name, pair in (("window", window), ("strides", strides)):
        if len(pair) != 2 or min(pair) < 1:
            raise ValueError(
                f"max_pool got {name}={pair}, needs two integers of at least 1: "
                "give height and width"
            )
    if padding not in ("SAME", "VALID"):
        raise ValueError(
            f"max_pool got padding={padding!r}, needs 'SAME' or 'VALID': choose one"
        )
    size = (x.shape[1], x.shape[2])
    if min(size) < 1 or (padding == "VALID" and np.any(np.less(size, window))):
        raise ValueError(
            f"max_pool got pictures of {size[0]}x{size[1]}, needs at least "
            f"{window[0]}x{window[1]} with 'VALID' and a pixel with 'SAME': "
            "use larger pictures or a smaller window"
        )
    rows, columns = jax.lax.padtype_to_pads(size, window, strides, padding)
    pads = (tuple(rows), tuple(columns))
    if window[0] * window[1] > MOST_PLANES:
        return nn.max_pool(x, window, strides, padding)
    return _pool(x, tuple(window), tuple(strides), pads, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool(
    x: jax.Array, window: Pair, strides: Pair, pads: Pads, size: Pair
) -> jax.Array:
    return _pool_fwd(x, window, strides, pads, size)[0]


def _pool_fwd(
    x: jax.Array, window: Pair, strides: Pair, pads: Pads, size: Pair
) -> tuple[jax.Array, jax.Array]:
    """Saves for the gradient only which value was chosen (a byte each), not `x`.

    If windows overlap, this loops over chunks of the batch on CPU. That helps the cache
    and stops XLA from fusing the index into the gradient, where it would be computed
    again for every window that contains a pixel.
    """
    whole = functools.partial(
        _largest_and_first, window=window, strides=strides, pads=pads
    )
    batch = x.shape[0]
    overlap = window[0] > strides[0] or window[1] > strides[1]
    if not overlap or not isinstance(batch, int) or x.size == 0:
        return whole(x)
    image_bytes = x.size // batch * x.dtype.itemsize
    chunk = chunks.chunk_size(batch, image_bytes, CACHE_BYTES)
    in_chunks = functools.partial(
        chunks.map_chunks, whole, size=chunk, filler=x[0, 0, 0, 0]
    )
    return jax.lax.platform_dependent(x, cpu=in_chunks, default=whole)


def _largest_and_first(
    x: jax.Array, window: Pair, strides: Pair, pads: Pads
) -> tuple[jax.Array, jax.Array]:
    """Returns each window's largest value and the index of its first occurrence."""
    planes = _planes(x, window, strides, pads)
    largest = functools.reduce(jnp.maximum, planes)
    last = len(planes) - 1
    first = jnp.full(largest.shape, last, np.min_scalar_type(last))
    for index in reversed(range(last)):
        here = planes[index] == largest
        first = jnp.where(here, jnp.array(index, first.dtype), first)
    return largest, first


def _pool_bwd(
    window: Pair,
    strides: Pair,
    pads: Pads,
    size: Pair,
    first: jax.Array,
    g: jax.Array,
) -> tuple[jax.Array]:
    """Gives every pixel the sum of the gradients of the windows that chose it.

    Pixel i = q * stride + p of the padded picture is value p + t * stride of window
    q - t. So for fixed p, the gradient is a sum over t of `g` shifted by t and masked
    by which value each window chose. Interleaving these planes gives the picture.
    """
    batch, *out_size, channels = g.shape
    cells = [
        max(-(-(pads[d][0] + size[d]) // strides[d]), out_size[d]) for d in range(2)
    ]

    def chosen(row: int, column: int) -> jax.Array:
        mask = first == jnp.array(row * window[1] + column, first.dtype)
        shifts = (row // strides[0], column // strides[1])
        around = [
            (s, max(c - o - s, 0))
            for s, c, o in zip(shifts, cells, out_size, strict=True)
        ]
        shifted = jnp.pad(jnp.where(mask, g, 0), [(0, 0), *around, (0, 0)])
        return shifted[:, : cells[0], : cells[1]]

    def plane(p: int, q: int) -> jax.Array:
        offsets = itertools.product(
            range(p, window[0], strides[0]), range(q, window[1], strides[1])
        )
        return sum(
            (chosen(*offset) for offset in offsets),
            jnp.zeros((batch, *cells, channels), g.dtype),
        )

    rows = [
        jnp.stack([plane(p, q) for q in range(strides[1])], axis=3)
        for p in range(strides[0])
    ]
    whole = jnp.stack(rows, axis=2).reshape(
        batch, cells[0] * strides[0], cells[1] * strides[1], channels
    )
    (top, _), (left, _) = pads
    return (whole[:, top : top + size[0], left : left + size[1]],)


_pool.defvjp(_pool_fwd, _pool_bwd)


def _planes(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> list[jax.Array]:
    """Returns, for each place in the window, row by row, the values of all windows."""
    lowest = jnp.array(-jnp.inf, x.dtype)
    x = jax.lax.pad(x, lowest, [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)])
    spans = [
        (x.shape[d + 1] - window[d]) // strides[d] * strides[d] + 1 for d in range(2)
    ]
    return [
        x[:, a : a + spans[0] : strides[0], b : b + spans[1] : strides[1]]
        for a, b in itertools.product(range(window[0]), range(window[1]))
    ]
