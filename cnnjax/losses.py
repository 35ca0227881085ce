"""Losses: cross-entropy of the logits, and L1 and L2 penalties on weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = Any

# Of the block of a sum: 128 KiB in float32, a fraction of a core's second-level cache.
BLOCK = 1 << 15


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


def sum_of_squares(x: jax.Array) -> jax.Array:
    """Returns sum(x**2), []; float32 for float32.

    On a CPU, the squares of blocks that fit into the cache are added up block on block.
    XLA by itself writes all of them to memory first, and takes eight times as long.
    """
    return jax.lax.platform_dependent(
        x.reshape(-1), cpu=_sum_of_blocks, default=lambda x: jnp.sum(jnp.square(x))
    )


def _sum_of_blocks(x: jax.Array) -> jax.Array:
    blocks = x[: x.size // BLOCK * BLOCK].reshape(-1, BLOCK)
    total, _ = jax.lax.scan(
        lambda total, block: (total + jnp.square(block), None),
        jnp.zeros(BLOCK, x.dtype),
        blocks,
    )
    return jnp.sum(total) + jnp.sum(jnp.square(x[blocks.size :]))


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
        return self._sum(self.l1, lambda w: jnp.sum(jnp.abs(w)), params)

    def l2_loss(self, params: Params) -> jax.Array:
        """Returns l2 * sum(w**2) / 2 over the penalised kernels, float32 []."""
        return self._sum(self.l2, sum_of_squares, params) / 2

    def _sum(
        self, weight: float, of_kernel: Callable[[jax.Array], jax.Array], params: Params
    ) -> jax.Array:
        if not weight:
            return jnp.zeros(())
        chosen = jax.tree.leaves(self.is_penalised(params))
        parts = [
            of_kernel(w)
            for w, is_chosen in zip(jax.tree.leaves(params), chosen, strict=True)
            if is_chosen
        ]
        return weight * sum(parts, jnp.zeros(()))
