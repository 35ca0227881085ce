"""Winograd's convolution F(4x4, 5x5) in chunks that fit in a CPU core's cache.

A 4x4 tile of the output takes 64 multiplications for each pair of channels instead of
400. In one dimension, with an input tile d of 8, a kernel k of 5 and an output of 4:

    out = A^T ((G k) * (B^T d))

In two dimensions the same is done along each axis. The transforms read and write every
channel once, so they are only worthwhile while a chunk stays in the cache.

Source: Winograd 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2016, from which the names A, B and G are taken.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops import chunks

OUT, KERNEL = 4, 5
TILE = OUT + KERNEL - 1
# Interpolation points, beside infinity: small and nearly symmetric, for precision.
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)
CACHE_BYTES = 5 << 19  # measured on Zen 4 with 1 MiB of second-level cache per core
MIN_CHANNELS = 32  # with fewer, the transforms cost as much as the products save
MIN_TILES = 24  # rows of the matrix products, which are slow with fewer
MIN_FILLED = 0.7  # share of the tiles' pixels that lie inside the picture


def is_worthwhile(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    """Tells whether `convolve` is faster on CPU than XLA's convolution.

    Args:
        x_shape: [batch, height, width, in]; False if a size is symbolic.
        kernel_shape: [kernel_height, kernel_width, in, out].
    """
    if kernel_shape[:2] != (KERNEL, KERNEL) or min(kernel_shape[2:]) < MIN_CHANNELS:
        return False
    if not all(isinstance(n, int) and n > 0 for n in x_shape):
        return False
    _, height, width, _ = x_shape
    tiles = _num_tiles(height) * _num_tiles(width)
    return (
        height * width >= MIN_FILLED * OUT**2 * tiles
        and _chunk_size(x_shape, kernel_shape[3]) * tiles >= MIN_TILES
    )


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with stride 1 and padding "SAME", with a relative error of about 3e-6.

    It maps float32 `x` [batch, height, width, in] and `kernel` [5, 5, in, out] to
    [batch, height, width, out].
    """
    _, height, width, channels = x.shape
    features = kernel.shape[3]
    transformed = _along_two_axes(_G, kernel)
    transformed = transformed.reshape(TILE**2, channels, features)

    def one_chunk(x: jax.Array) -> jax.Array:
        tiles = _input_tiles(x)
        rows = tiles.reshape(TILE**2, -1, channels)
        products = jnp.einsum("tnc,tco->tno", rows, transformed)
        out = _along_two_axes(_A.T, products.reshape(*tiles.shape[:-1], features))
        return _join_tiles(out)[:, :height, :width]

    filler = x[0, 0, 0, 0] * kernel[0, 0, 0, 0]
    return chunks.map_chunks(one_chunk, x, _chunk_size(x.shape, features), filler)


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Returns the gradient for the kernel of `convolve`: G^T ((B^T d) * (A g)).

    It maps float32 `x` [batch, height, width, in] and the gradient for the output `g`
    [batch, height, width, out] to [5, 5, in, out].
    """
    channels, features = x.shape[3], g.shape[3]

    def one_chunk(x: jax.Array, g: jax.Array) -> jax.Array:
        tiles = _input_tiles(x).reshape(TILE**2, -1, channels)
        g_tiles = _along_two_axes(_A, _split_tiles(g)).reshape(TILE**2, -1, features)
        return jnp.einsum("tnc,tno->tco", tiles, g_tiles)

    total = chunks.sum_chunks(one_chunk, (x, g), _chunk_size(x.shape, features))
    return _along_two_axes(_G.T, total.reshape(TILE, TILE, channels, features))


def _cook_toom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns A [8, 4], B^T [8, 8] and G [8, 5] for the points and infinity.

    A and G evaluate polynomials, whose coefficients are the values, at the points. The
    rows of B^T are the numerators of Lagrange's polynomials; G contains the divisors.
    """
    a, b_t, g = np.zeros((TILE, OUT)), np.zeros((TILE, TILE)), np.zeros((TILE, KERNEL))
    for i, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        a[i] = np.power(float(point), np.arange(OUT))
        g[i] = np.power(float(point), np.arange(KERNEL))
        g[i] /= np.prod([point - other for other in others])
        b_t[i, :-1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b_t[-1] = np.poly(POINTS)[::-1]
    return a, b_t, g


_A, _B_T, _G = _cook_toom()


def _combine(matrix: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
    """Returns matrix times parts, as sums that XLA can fuse, without zero terms."""
    return [
        functools.reduce(
            operator.add,
            (float(w) * part for w, part in zip(row, parts, strict=True) if w),
        )
        for row in matrix
    ]


def _along_two_axes(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Applies the matrix [m, n] to both leading axes of [n, n, ...]: [m, m, ...]."""
    x = jnp.stack(_combine(matrix, list(x)))
    columns = [x[:, i] for i in range(x.shape[1])]
    return jnp.stack(_combine(matrix, columns), axis=1)


def _num_tiles(size: int) -> int:
    return -(-size // OUT)


def _chunk_size(x_shape: tuple[int, ...], features: int) -> int:
    batch, height, width, channels = x_shape
    tiles = _num_tiles(height) * _num_tiles(width)
    image_bytes = tiles * TILE**2 * (channels + features) * np.float32().itemsize
    return chunks.chunk_size(batch, image_bytes, CACHE_BYTES)


def _input_tiles(x: jax.Array) -> jax.Array:
    """Returns B^T d B for the overlapping tiles d: [8, 8, batch, rows, columns, in]."""
    _, height, width, _ = x.shape
    rows, columns = _num_tiles(height), _num_tiles(width)
    before = KERNEL // 2
    x = jnp.pad(
        x,
        (
            (0, 0),
            (before, OUT * (rows - 1) + TILE - before - height),
            (before, OUT * (columns - 1) + TILE - before - width),
            (0, 0),
        ),
    )
    down = [x[:, i : i + OUT * rows - OUT + 1 : OUT] for i in range(TILE)]
    x = jnp.stack(_combine(_B_T, down))
    right = [x[:, :, :, j : j + OUT * columns - OUT + 1 : OUT] for j in range(TILE)]
    return jnp.stack(_combine(_B_T, right), axis=1)


def _split_tiles(g: jax.Array) -> jax.Array:
    """Splits [batch, height, width, out] into [4, 4, batch, rows, columns, out]."""
    batch, height, width, features = g.shape
    rows, columns = _num_tiles(height), _num_tiles(width)
    below, right = OUT * rows - height, OUT * columns - width
    g = jnp.pad(g, ((0, 0), (0, below), (0, right), (0, 0)))
    g = g.reshape(batch, rows, OUT, columns, OUT, features)
    return g.transpose(2, 4, 0, 1, 3, 5)


def _join_tiles(out: jax.Array) -> jax.Array:
    """Joins tiles [4, 4, batch, rows, columns, out] to [batch, height, width, out]."""
    _, _, batch, rows, columns, features = out.shape
    out = out.transpose(2, 3, 0, 4, 1, 5)
    return out.reshape(batch, rows * OUT, columns * OUT, features)
