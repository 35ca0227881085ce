"""What is minimised: cross-entropy of the logits and penalties on weights."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = Any


def cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Returns the cross-entropy of each example, computed from the logits.

    loss = log(sum_c exp(logits[c])) - sum_c target[c] * logits[c], with target
    (1 - label_smoothing) * onehot(label) + label_smoothing / num_classes. The logarithm
    of a softmax, as chapter 5.2 writes it, is -inf as soon as one probability rounds
    to zero; this is finite for finite logits.

    Args:
        logits: float [batch, num_classes].
        labels: int32 [batch], in [0, num_classes).
        label_smoothing: in [0, 1).

    Returns:
        nats, float32 [batch].
    """
    logits = logits.astype(jnp.float32)
    targets = optax.smooth_labels(
        jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing
    )
    return optax.softmax_cross_entropy(logits, targets)


def log_mean_softmax(logits: jax.Array) -> jax.Array:
    """Returns the logarithm of the mean of the softmax outputs of several views.

    out[n, c] = log(mean_v softmax(logits[v, n])[c]), computed without leaving the
    logarithms. It stands for the logits of all views: its softmax is that mean.

    Args:
        logits: float [views, batch, num_classes].

    Returns:
        float32 [batch, num_classes].

    Source: cuda-convnet's multiview test averages the outputs of its softmax layer.
    """
    log_softmax = jax.nn.log_softmax(logits.astype(jnp.float32))
    return jax.nn.logsumexp(log_softmax, axis=0) - jnp.log(float(len(logits)))


def is_penalised(params: Params, layers: Sequence[str]) -> Params:
    """Returns a tree like `params` that is True at the kernels of `layers`."""

    def penalised(path: tuple[Any, ...], _: jax.Array) -> bool:
        names = [entry.key for entry in path]
        return names[-1] == "kernel" and names[-2] in layers

    return jax.tree_util.tree_map_with_path(penalised, params)


def l2_penalty(params: Params, layers: Sequence[str], weight: float) -> jax.Array:
    """Returns weight * sum(w**2) / 2 over the kernels of `layers`, float32 [].

    The half is that of `tf.nn.l2_loss`: the gradient is weight * w.
    """
    squares = [jnp.sum(jnp.square(w)) for w in _penalised_kernels(params, layers)]
    return weight * sum(squares, jnp.zeros(())) / 2


def l1_penalty(params: Params, layers: Sequence[str], weight: float) -> jax.Array:
    """Returns weight * sum(abs(w)) over the kernels of `layers`, float32 []."""
    sizes = [jnp.sum(jnp.abs(w)) for w in _penalised_kernels(params, layers)]
    return weight * sum(sizes, jnp.zeros(()))


def _penalised_kernels(params: Params, layers: Sequence[str]) -> list[jax.Array]:
    chosen = jax.tree.leaves(is_penalised(params, layers))
    kernels = jax.tree.leaves(params)
    return [w for w, is_chosen in zip(kernels, chosen, strict=True) if is_chosen]
