"""Checks of each operation, its gradients, and the random numbers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import losses, prng
from cnnjax.data import augment
from cnnjax.models import lenet
from cnnjax.ops import chunks, conv, dropout, lrn, pool, winograd
from verification import numpy_data, numpy_ops
from verification.check import (
    ELEMENTWISE,
    FLOAT32,
    LEAF_WINOGRAD,
    Check,
    Outcome,
    default_rounding,
    sum_bound,
    worst,
)
from verification.numpy_ops import Array


def _noise(*shapes: tuple[int, ...]) -> list[Array]:
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def _compare(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    arguments: list[Array],
    *bounds: float,
    precision: str | None = None,
) -> Outcome:
    """Compares the value and the gradients of an operation with the reference.

    `bounds` are of the value and of the gradient for each argument; `reference` returns
    a value and its pullback.
    """
    want, pull = reference(*(argument.astype(float) for argument in arguments))
    g = np.random.default_rng(1).normal(size=want.shape).astype(np.float32)

    @jax.jit
    def both(g: jax.Array, *arguments: jax.Array) -> Any:
        value, back = jax.vjp(function, *arguments)
        return value, *back(g)

    with jax.default_matmul_precision(precision):
        got = jax.device_get(both(g, *arguments))
    right = [want, *pull(g.astype(float))][: len(got)]
    names = ["value", *(f"gradient of argument {i + 1}" for i in range(len(arguments)))]
    return worst(dict(zip(names, zip(got, right, bounds, strict=True), strict=True)))


def _lrn(beta: float) -> Outcome:
    how = (4, 1.0, 0.3, beta)  # an alpha at which every term of the gradient counts
    return _compare(
        lambda x: lrn.local_response_normalization(x, *how),
        lambda x: numpy_ops.lrn(x, *how),
        _noise((2, 5, 5, 64)),
        ELEMENTWISE,
        ELEMENTWISE,
    )


def _pool(window: int, stride: int, padding: str) -> Outcome:
    # Small integers: most windows have ties.
    x = np.random.default_rng(0).integers(-1, 2, (6, 13, 12, 8)).astype(np.float32)
    return _compare(
        lambda x: pool.max_pool(x, (window, window), (stride, stride), padding),
        lambda x: numpy_ops.max_pool(x, window, stride, padding),
        [x],
        0.0,
        # A pixel adds the gradients of up to nine windows.
        sum_bound(9),
    )


def _conv(
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    padding: str = "SAME",
    *,
    function: Callable[..., Any] = conv.conv,
    precision: str | None = None,
) -> Outcome:
    rounding = FLOAT32 if precision else default_rounding()
    terms, pixels = math.prod(kernel[:3]), math.prod(x[:3])
    bounds = [sum_bound(n, rounding) for n in (terms, terms, pixels)]
    if min(kernel[2:]) >= winograd.MIN_CHANNELS:
        bounds = [max(bound, LEAF_WINOGRAD) for bound in bounds]
    return _compare(
        lambda x, kernel: function(x, kernel, padding),
        lambda x, kernel: numpy_ops.conv(x, kernel, np.zeros(kernel.shape[3]), padding),
        _noise(x, kernel),
        *bounds,
        precision=precision,
    )


def _in_a_loop(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    y = jax.lax.map(lambda x: conv.conv(x, kernel, padding), chunks.split(x, 2))
    return y.reshape(-1, *y.shape[2:])


def _winograd() -> Outcome:
    """Calls Winograd's algorithm itself, which `conv` chooses on a CPU only."""
    x, kernel, g = _noise((6, 12, 12, 64), (5, 5, 64, 64), (6, 12, 12, 64))
    want, pull = numpy_ops.conv(x.astype(float), kernel, np.zeros(64), "SAME")
    with jax.default_matmul_precision("highest"):
        value = jax.jit(winograd.convolve)(x, kernel)
        dkernel = jax.jit(winograd.kernel_gradient)(x, g)
    right = pull(g.astype(float))[1]
    parts = {"value": (value, want), "gradient of the kernel": (dkernel, right)}
    return worst({name: (*both, LEAF_WINOGRAD) for name, both in parts.items()})


def _dropout() -> Outcome:
    positions, keep = np.arange(6, dtype=np.uint32) + 70, 0.7
    drawn = numpy_data.uniform(numpy_data.keys(5, "dropout", positions), count=1000)

    def dropped(x: jax.Array) -> jax.Array:
        key = prng.from_seed(5, prng.DROPOUT)
        keys = prng.at_positions(key, jnp.asarray(positions))
        return dropout.dropout(x, keep, keys)

    return _compare(
        dropped,
        lambda x: numpy_ops.scale(x, (drawn < np.float32(keep)) / keep),
        _noise((6, 1000)),
        4 * FLOAT32,
        4 * FLOAT32,
    )


SHAPE, CROP, PICTURES = (32, 30, 3), 24, 12
HOW = augment.Preprocessing(CROP, augment.DISTORTIONS, "per_image")
POSITIONS = np.arange(PICTURES, dtype=np.uint32) + 1000


def _distortions() -> Outcome:
    """Draws all distortions and applies them; whole numbers must be the same."""
    images = np.random.default_rng(0).integers(0, 256, (PICTURES, *SHAPE), np.uint8)

    @jax.jit
    def run(images: jax.Array) -> tuple[augment.DistortionParams, jax.Array]:
        drawn = augment.draw(prng.from_seed(7, prng.DATA), POSITIONS, HOW, SHAPE)
        return drawn, augment.apply(images, drawn, HOW)

    got, made = jax.device_get(run(images))
    want = numpy_data.draw(7, POSITIONS, SHAPE, CROP, augment.DISTORTIONS)
    centre = np.stack([want["cutout_row"], want["cutout_column"]], axis=1)
    scaled = 4 * FLOAT32  # low + (high - low) * fraction
    # Coordinates of up to 32 are rounded a few times, and in noise a picture changes by
    # its own size from pixel to pixel.
    moved = 4 * 32 * FLOAT32
    return worst(
        {
            "crop's row": (got.top, want["crop_top"], 0.0),
            "crop's column": (got.left, want["crop_left"], 0.0),
            "flip": (got.flip, want["flip"] < 0.5, 0.0),
            "brightness": (got.brightness, want["brightness"], scaled),
            "contrast": (got.contrast, want["contrast"], scaled),
            "cutout's centre": (got.cutout, centre, 0.0),
            "pictures": (made, numpy_data.distort(images, want, CROP), moved),
        }
    )


def _loss(function: Callable[..., Any], **how: float) -> Outcome:
    labels = np.arange(8)
    return _compare(
        lambda logits: function(logits, labels),
        lambda logits: numpy_ops.cross_entropy(logits, labels, **how),
        _noise((8, 10)),
        ELEMENTWISE,
        ELEMENTWISE,
    )


def _views() -> Outcome:
    (logits,) = _noise((10, 6, 10))
    powers = np.exp(logits.astype(float))
    mean = (powers / powers.sum(-1, keepdims=True)).mean(axis=0)
    got = jax.jit(losses.log_mean_softmax)(logits)
    return worst({"value": (got, np.log(mean), ELEMENTWISE)})


def _penalty() -> Outcome:
    l1, l2 = 0.003, 0.02
    penalty = losses.Penalty(l1, l2, ("local3",))

    def loss(w: jax.Array) -> jax.Array:
        params = {"local3": {"kernel": w, "bias": w}, "conv1": {"kernel": w}}
        return penalty.l1_loss(params) + penalty.l2_loss(params)

    def reference(w: Array) -> tuple[Array, Any]:
        value = l1 * abs(w).sum() + l2 * (w * w).sum() / 2
        return value, lambda g: (g * (l1 * np.sign(w) + l2 * w),)

    size = (300, 40)
    return _compare(
        loss, reference, _noise(size), sum_bound(math.prod(size)), ELEMENTWISE
    )


def checks() -> list[Check]:
    """Returns the checks of all operations."""
    first = ((4, 24, 24, 3), (5, 5, 3, 64))
    second = ((8, 12, 12, 64), (5, 5, 64, 64))
    smoothed = partial(losses.cross_entropy, label_smoothing=0.1)
    rejecting = partial(lenet.rejection_cross_entropy, j=1.0)
    rows: dict[str, Callable[[], Outcome]] = {
        "LRN, beta 0.5": partial(_lrn, 0.5),
        "LRN, beta 0.75": partial(_lrn, 0.75),
        "LRN, beta 1.3": partial(_lrn, 1.3),
        "max pool 3x3, stride 2, ties": partial(_pool, 3, 2, "SAME"),
        "max pool 2x2, stride 2, ties": partial(_pool, 2, 2, "SAME"),
        "max pool 3x3, stride 1, ties, VALID": partial(_pool, 3, 1, "VALID"),
        "convolution 5x5, 3 to 64": partial(_conv, *first),
        "convolution 5x5, 64 to 64": partial(_conv, *second),
        "convolution 5x5, 64 to 64, highest": partial(
            _conv, *second, precision="highest"
        ),
        "convolution 5x5, 64 to 64, in a loop": partial(
            _conv, *second, function=_in_a_loop
        ),
        "convolution 5x5, 6 to 16, VALID": partial(
            _conv, (5, 14, 14, 6), (5, 5, 6, 16), "VALID"
        ),
        "convolution 3x1, 4 to 6": partial(_conv, (3, 11, 13, 4), (3, 1, 4, 6)),
        "Winograd's convolution, highest": _winograd,
        "dropout, its masks": _dropout,
        "distortions, their random numbers": _distortions,
        "cross-entropy, smoothed labels": partial(_loss, smoothed, smoothing=0.1),
        "LeNet-5's loss": partial(_loss, rejecting, rejection=1.0),
        "mean of several views": _views,
        "L1 and L2 penalties": _penalty,
    }
    return [Check(name, run) for name, run in rows.items()]
