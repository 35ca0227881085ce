"""Two-dimensional convolution with stride 1 whose gradients are fast on CPU.

XLA's CPU backend is fast only for convolutions with the layout NHWC, HWIO -> NHWC. The
gradients that autodiff makes have other layouts. XLA converts them at the top level of
a program but not inside a loop, where they ran 17 times slower. So on CPU the gradients
here are written as convolutions of the fast layout. On other platforms they are those
of autodiff, which XLA maps to cuDNN. The choice is made when a program is lowered.
"""

import functools

import jax
import jax.numpy as jnp

from cnnjax.ops import chunks, winograd

# Bytes of the pictures' gradients that take the place of the kernel in a convolution,
# which reads them again for every few pixels of its output. With more than fit in a
# core's second-level cache the gradient of conv1's kernel took 6.9 ms in place of 3.0
# (64 pictures of 24x24x3 to 64 channels, a core of a Xeon with 2 MiB).
CACHE_BYTES = 5 << 17

Pads = tuple[tuple[int, int], tuple[int, int]]


def conv(x: jax.Array, kernel: jax.Array, padding: str = "SAME") -> jax.Array:
    """Convolves images with a kernel (a cross-correlation, as usual in the field).

    out[n, i, j, o] = sum_{a, b, c} x[n, i + a, j + b, c] * kernel[a, b, c, o]

    where x has the zeros around it that `padding` asks for.
    On CPU, 5x5 kernels with many channels use `winograd`, whose relative error is about
    3e-6; that of other convolutions is at most about 1e-6.

    Args:
        x: float [batch, height, width, in].
        kernel: float [kernel_height, kernel_width, in, out], same dtype as `x`.
        padding: "SAME" (zeros around the images) or "VALID".

    Returns:
        float [batch, height', width', out], same dtype as `x`.

    Raises:
        ValueError: shapes or dtypes do not match, the padding is unknown, or the kernel
            is larger than the images with "VALID".
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(
            f"conv got x {list(x.shape)} and kernel {list(kernel.shape)}, needs [batch,"
            " height, width, in] and [height, width, in, out]: give both the same `in`"
        )
    if x.dtype != kernel.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"conv got x of {x.dtype} and kernel of {kernel.dtype}, needs one floating "
            "dtype: convert them"
        )
    if padding not in ("SAME", "VALID"):
        raise ValueError(
            f"conv got padding={padding!r}, needs 'SAME' or 'VALID': choose one"
        )
    size, window = x.shape[1:3], kernel.shape[:2]
    if padding == "VALID" and (size[0] < window[0] or size[1] < window[1]):
        raise ValueError(
            f"conv got pictures of {size[0]}x{size[1]} for a 'VALID' kernel of "
            f"{window[0]}x{window[1]}, needs at least that: use larger pictures"
        )
    rows, columns = jax.lax.padtype_to_pads(size, window, (1, 1), padding)
    return _conv(x, kernel, (tuple(rows), tuple(columns)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    library = functools.partial(_library_conv, pads=pads)
    if not _suits_winograd(x, kernel.shape, pads):
        return library(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=winograd.convolve, default=library)


def _conv_fwd(
    x: jax.Array, kernel: jax.Array, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, pads), (x, kernel)


def _conv_bwd(
    pads: Pads, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Chooses the platform for each gradient, so that an unused one is not computed."""
    x, kernel = residuals

    def autodiff_dx(g: jax.Array, kernel: jax.Array) -> jax.Array:
        transpose = jax.linear_transpose(lambda x: _library_conv(x, kernel, pads), x)
        return transpose(g)[0]

    def autodiff_dk(x: jax.Array, g: jax.Array) -> jax.Array:
        transpose = jax.linear_transpose(lambda k: _library_conv(x, k, pads), kernel)
        return transpose(g)[0]

    def cpu_dx(g: jax.Array, kernel: jax.Array) -> jax.Array:
        # As a stack of matrices, which XLA transposes in a pass of its own. Within
        # Winograd's transform it takes 0.8 ms in place of 0.2 (5x5x64x64, one core).
        matrices = jax.lax.collapse(kernel, 0, 2)[::-1].transpose(0, 2, 1)
        flipped = matrices.reshape(*kernel.shape[:2], *matrices.shape[1:])
        (top, bottom), (left, right) = pads
        height, width = kernel.shape[0] - 1, kernel.shape[1] - 1
        around = ((height - top, height - bottom), (width - left, width - right))
        if _suits_winograd(g, flipped.shape, around):
            return winograd.convolve(g, flipped)
        return _library_conv(g, flipped, around)

    def cpu_dk(x: jax.Array, g: jax.Array) -> jax.Array:
        if _suits_winograd(x, kernel.shape, pads):
            return winograd.kernel_gradient(x, g)
        return _kernel_gradient(x, g, pads, kernel.size)

    dx = jax.lax.platform_dependent(g, kernel, cpu=cpu_dx, default=autodiff_dx)
    dk = jax.lax.platform_dependent(x, g, cpu=cpu_dk, default=autodiff_dk)
    return dx, dk


_conv.defvjp(_conv_fwd, _conv_bwd)


def _kernel_gradient(
    x: jax.Array, g: jax.Array, pads: Pads, num_weights: int
) -> jax.Array:
    """Returns the kernel's gradient by convolutions of the fast layout, in chunks."""
    wide = g.dtype if g.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)

    def one_chunk(x: jax.Array, g: jax.Array) -> jax.Array:
        # Input channels take the place of the batch, the batch that of channels, and
        # `g` that of the kernel.
        x, g = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
        return _library_conv(x, g, pads, wide).transpose(1, 2, 0, 3)

    batch = g.shape[0]
    is_known = all(isinstance(n, int) for n in (*x.shape, *g.shape))
    # Where the kernel is larger than `g`, to add to its gradient takes more than helps.
    if is_known and x.size and g.size > num_weights:
        size = min(batch, max(1, CACHE_BYTES * batch // (g.size * g.dtype.itemsize)))
        return chunks.sum_chunks(one_chunk, (x, g), size).astype(x.dtype)
    return one_chunk(x, g).astype(x.dtype)


def _suits_winograd(x: jax.Array, kernel_shape: tuple[int, ...], pads: Pads) -> bool:
    return (
        x.dtype == jnp.float32
        and pads == ((2, 2), (2, 2))
        and winograd.is_worthwhile(x.shape, kernel_shape)
    )


def _library_conv(
    x: jax.Array, kernel: jax.Array, pads: Pads, dtype: jnp.dtype | None = None
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=dtype,
    )
