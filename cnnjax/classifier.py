"""What a network says of pictures, and by which of their pixels."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import losses
from cnnjax.data import augment

Function = Callable[[jax.Array], jax.Array]


def make_logits(
    model: nn.Module,
    params: Any,
    preprocessing: augment.Preprocessing,
    num_seeds: int = 1,
) -> Function:
    """Returns the function pictures -> logits, standardised as evaluation does.

    Of several networks, the logarithm of their mean probabilities.

    Args:
        model: a network of `cnnjax.models`.
        params: its parameters; of several networks, every leaf leads with `num_seeds`.
        preprocessing: crop and normalisation; its distortions are not applied.
        num_seeds: how many networks there are.

    Returns:
        A pure function of [batch, height, width, channels], pixels in [0, 255], uint8
        or float32; the result is float32 [batch, num_classes]. The batch may be
        symbolic.
    """

    def logits(images: jax.Array) -> jax.Array:
        view = augment.standard_view(images, preprocessing)

        def of_one(params: Any) -> jax.Array:
            return jnp.asarray(model.apply({"params": params}, view, dropout_keys=None))

        if num_seeds == 1:
            return of_one(params)
        return losses.log_mean_softmax(jax.lax.map(of_one, params))

    return logits


def make_probabilities(logits: Function) -> Function:
    """Returns the function pictures -> softmax of their logits."""
    return lambda images: jax.nn.softmax(logits(images))


def make_saliency(logits: Function) -> Function:
    """Returns the function pictures -> how much each pixel moves the likeliest class.

    out[n, i, j] = max_k |d max_c logits[n, c] / d images[n, i, j, k]|

    Args:
        logits: from `make_logits`.

    Returns:
        A function from uint8 [batch, height, width, channels] to float32 [batch,
        height, width], a logit for each step of a pixel in [0, 255]; zero outside the
        crop.

    Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2014,
    section 3.1.
    """

    def total(images: jax.Array) -> jax.Array:
        # Each picture moves its own logits only, so one gradient gives them all.
        return jnp.sum(jnp.max(logits(images), axis=-1))

    def saliency(images: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(jax.grad(total)(images.astype(jnp.float32))), axis=-1)

    return saliency


def in_batches(
    function: Callable[[Any], Any], images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Returns `function(images)`, computed on batches of one size.

    Args:
        function: from [batch, ...] to [batch, ...], each example by itself.
        images: [n, ...], n at least 1.
        batch_size: at most so many at a time; the last batch is filled up with zeros.
    """
    size = min(batch_size, len(images))
    compiled = jax.jit(function)
    found = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padding = [(0, size - len(batch)), *[(0, 0)] * (images.ndim - 1)]
        found.append(np.asarray(compiled(np.pad(batch, padding)))[: len(batch)])
    return np.concatenate(found)
