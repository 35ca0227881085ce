"""The operations of the networks in NumPy and float64, each with its gradient.

Written for clarity and without the library. Each takes an input and its weights, and
returns its value with `pull`, which maps the gradient for the value to the gradients
for the input and for each weight. Images are [batch, height, width, channels].
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pull = Callable[[Array], tuple[Array, ...]]


def conv(x: Array, kernel: Array, bias: Array, padding: str) -> tuple[Array, Pull]:
    """Convolves with stride 1; `kernel` is [height, width, in, out], odd for "SAME"."""
    sides = kernel.shape[:2]
    around = [((n - 1) // 2, n // 2) if padding == "SAME" else (0, 0) for n in sides]
    padded = np.pad(x, [(0, 0), *around, (0, 0)])
    patches = np.lib.stride_tricks.sliding_window_view(padded, sides, axis=(1, 2))
    y = np.tensordot(patches, kernel, axes=([3, 4, 5], [2, 0, 1])) + bias

    def pull(g: Array) -> tuple[Array, ...]:
        dkernel = np.tensordot(patches, g, axes=([0, 1, 2], [0, 1, 2]))
        dx = np.zeros_like(padded)
        for row, column in itertools.product(*map(range, sides)):
            seen = dx[:, row : row + g.shape[1], column : column + g.shape[2]]
            seen += np.tensordot(g, kernel[row, column], axes=(3, 1))
        (top, _), (left, _) = around
        inside = dx[:, top : top + x.shape[1], left : left + x.shape[2]]
        return inside, dkernel.transpose(1, 2, 0, 3), g.sum(axis=(0, 1, 2))

    return y, pull


def max_pool(
    x: Array, window: int, stride: int, padding: str = "SAME"
) -> tuple[Array, Pull]:
    """Takes the largest of each window; the first of several has the gradient."""
    around, out = [(0, 0)], []
    for n in x.shape[1:3]:
        count = -(-n // stride) if padding == "SAME" else (n - window) // stride + 1
        missing = max((count - 1) * stride + window - n, 0)
        around.append((missing // 2, missing - missing // 2))
        out.append(count)
    padded = np.pad(x, [*around, (0, 0)], constant_values=-np.inf)
    places = list(itertools.product(range(window), range(window)))

    def at(image: Array, place: tuple[int, int]) -> Array:
        rows, columns = (
            slice(first, first + stride * (count - 1) + 1, stride)
            for first, count in zip(place, out, strict=True)
        )
        return image[:, rows, columns]

    values = np.stack([at(padded, place) for place in places])
    chosen = values.argmax(axis=0)

    def pull(g: Array) -> tuple[Array, ...]:
        dx = np.zeros_like(padded)
        for i, place in enumerate(places):
            at(dx, place)[...] += np.where(chosen == i, g, 0)
        (top, _), (left, _) = around[1:]
        return (dx[:, top : top + x.shape[1], left : left + x.shape[2]],)

    return values.max(axis=0), pull


def mean_pool(x: Array, factor: float = 0.25) -> tuple[Array, Pull]:
    """Returns `factor` times the sum of each 2x2 block: by default, the mean."""
    y = x[:, ::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, ::2] + x[:, 1::2, 1::2]
    return factor * y, lambda g: (factor * g.repeat(2, axis=1).repeat(2, axis=2),)


def sub_sampling(x: Array, coefficient: Array, bias: Array) -> tuple[Array, Pull]:
    """Returns squash(coefficient * sum of each 2x2 block + bias), LeNet-5's layer."""
    sums, spread = mean_pool(x, 1.0)
    y, through = squash(sums * coefficient + bias)

    def pull(g: Array) -> tuple[Array, ...]:
        (g,) = through(g)
        over = (0, 1, 2)
        return *spread(g * coefficient), (g * sums).sum(over), g.sum(over)

    return y, pull


def lrn(
    x: Array, radius: int, bias: float, alpha: float, beta: float
) -> tuple[Array, Pull]:
    """Returns x / (bias + alpha * sum of x**2 over near channels) ** beta."""
    channels = np.arange(x.shape[-1])
    near = (abs(channels[:, None] - channels) <= radius).astype(float)
    y = bias + alpha * (x * x) @ near

    def pull(g: Array) -> tuple[Array, ...]:
        through = (g * x * y ** (-beta - 1)) @ near
        return (g * y**-beta - 2 * alpha * beta * x * through,)

    return x * y**-beta, pull


def dense(x: Array, kernel: Array, bias: Array) -> tuple[Array, Pull]:
    """Returns x @ kernel + bias."""
    return x @ kernel + bias, lambda g: (g @ kernel.T, x.T @ g, g.sum(axis=0))


def relu(x: Array) -> tuple[Array, Pull]:
    """Returns max(x, 0)."""
    return np.maximum(x, 0), lambda g: (g * (x > 0),)


def squash(x: Array) -> tuple[Array, Pull]:
    """Returns 1.7159 * tanh(2/3 x), LeNet-5's activation."""
    y = np.tanh(2 / 3 * x)
    return 1.7159 * y, lambda g: (g * 1.7159 * 2 / 3 * (1 - y * y),)


def flatten(x: Array) -> tuple[Array, Pull]:
    """Reshapes [batch, ...] to [batch, n]."""
    return x.reshape(len(x), -1), lambda g: (g.reshape(x.shape),)


def scale(x: Array, factors: Array) -> tuple[Array, Pull]:
    """Multiplies by constants, such as a dropout mask over its probability."""
    return x * factors, lambda g: (g * factors,)


def distances(x: Array, targets: Array) -> tuple[Array, Pull]:
    """Returns minus the squared distances of [batch, units] to [classes, units]."""
    apart = x[:, None] - targets
    return -(apart**2).sum(-1), lambda g: (-2 * (g[..., None] * apart).sum(1),)


def cross_entropy(
    logits: Array, labels: Array, smoothing: float = 0.0, rejection: float | None = None
) -> tuple[Array, Pull]:
    """Returns -sum(target * log(softmax)) of each example.

    With `rejection` a further class has the constant logit -rejection (LeNet-5).
    """
    classes = logits.shape[-1]
    target = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    largest = logits.max(axis=-1, keepdims=True)
    powers = np.exp(logits - largest)
    total = powers.sum(axis=-1, keepdims=True)
    if rejection is not None:
        total = total + np.exp(-rejection - largest)
    losses = (np.log(total) + largest)[:, 0] - (target * logits).sum(-1)
    return losses, lambda g: (g[:, None] * (powers / total - target),)
