"""Losses: cross-entropy of the logits, and L1 and L2 penalties on weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = Any


def cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Returns the cross-entropy of each example in nats, float32 [batch].

    loss = log(sum_c exp(logits[c])) - sum_c target[c] * logits[c], with target
    (1 - label_smoothing) * onehot(label) + label_smoothing / num_classes. It is finite
    for finite logits, while the logarithm of a softmax, as chapter 5.2 writes it, is
    -inf as soon as one probability rounds to zero.

    Args:
        logits: float [batch, num_classes].
        labels: int32 [batch], in [0, num_classes).
        label_smoothing: in [0, 1).
    """
    logits = logits.astype(jnp.float32)
    targets = optax.smooth_labels(
        jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing
    )
    return optax.softmax_cross_entropy(logits, targets)


def log_mean_softmax(logits: jax.Array) -> jax.Array:
    """Returns the logarithm of the mean of the views' softmax outputs.

    out[n, c] = log(mean_v softmax(logits[v, n])[c]), float32 [batch, num_classes], for
    logits [views, batch, num_classes]. It serves as the logits of all views together.

    Source: cuda-convnet's multiview test averages the outputs of its softmax layer.
    """
    log_softmax = jax.nn.log_softmax(logits.astype(jnp.float32))
    return jax.nn.logsumexp(log_softmax, axis=0) - jnp.log(float(len(logits)))


@dataclasses.dataclass(frozen=True)
class Penalty:
    """L1 and L2 penalties on kernels: l1 * sum(abs(w)) + l2 * sum(w**2) / 2.

    The half is that of `tf.nn.l2_loss`, so the gradient of the L2 penalty is l2 * w.
    Both weights are at least 0. `layers` names the layers whose kernels are penalised;
    None penalises every kernel.
    """

    l1: float = 0.0
    l2: float = 0.0
    layers: tuple[str, ...] | None = None

    def is_penalised(self, params: Params) -> Params:
        """Returns a tree like `params` that is True at the penalised kernels."""

        def penalised(path: tuple[Any, ...], _: jax.Array) -> bool:
            names = [entry.key for entry in path]
            layer = names[-2] if len(names) > 1 else ""
            is_chosen = self.layers is None or layer in self.layers
            return names[-1] == "kernel" and is_chosen

        return jax.tree_util.tree_map_with_path(penalised, params)

    def l1_loss(self, params: Params) -> jax.Array:
        """Returns l1 * sum(abs(w)) over the penalised kernels, float32 []."""
        return self.l1 * self._sum(jnp.abs, params)

    def l2_loss(self, params: Params) -> jax.Array:
        """Returns l2 * sum(w**2) / 2 over the penalised kernels, float32 []."""
        return self.l2 * self._sum(jnp.square, params) / 2

    def _sum(
        self, function: Callable[[jax.Array], jax.Array], params: Params
    ) -> jax.Array:
        if not self.l1 and not self.l2:
            return jnp.zeros(())
        chosen = jax.tree.leaves(self.is_penalised(params))
        parts = [
            jnp.sum(function(w))
            for w, is_chosen in zip(jax.tree.leaves(params), chosen, strict=True)
            if is_chosen
        ]
        return sum(parts, jnp.zeros(()))
