"""Sums over examples that merge, and are divided once."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Metrics:
    """Sums over the examples seen; the mean of means is never taken.

    Attributes:
        loss: sum of the examples' losses in nats, float32 [].
        correct: number predicted right, float32 [] (exact up to 2**24).
        count: number of examples, float32 [].
    """

    loss: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def of_batch(
        cls,
        losses: jax.Array,
        logits: jax.Array,
        labels: jax.Array,
        mask: jax.Array,
        k: int = 1,
    ) -> "Metrics":
        """Returns the sums over the examples of a batch whose mask is 1.

        Args:
            losses: float32 [batch].
            logits: float32 [batch, num_classes].
            labels: int32 [batch].
            mask: float32 [batch], 0 for padding.
            k: a prediction is right when the label is among the first `k`.
        """
        correct = is_among_top(logits, labels, k)
        # where, not a product: a padded example's loss may be anything, NaN included.
        return cls(
            loss=jnp.sum(jnp.where(mask > 0, losses, 0.0)),
            correct=jnp.sum(jnp.where(mask > 0, correct.astype(jnp.float32), 0.0)),
            count=jnp.sum(mask),
        )

    def merge(self, other: "Metrics") -> "Metrics":
        """Returns the sums over both."""
        return jax.tree.map(jnp.add, self, other)


def is_among_top(logits: jax.Array, labels: jax.Array, k: int = 1) -> jax.Array:
    """Returns whether fewer than `k` other classes score at or above the label's.

    Stricter than `tf.nn.in_top_k`, which calls a tie right: a network that gives every
    class the same score is right never, not always. A label's NaN is wrong, and a
    NaN elsewhere counts as above it.

    Args:
        logits: float [batch, num_classes].
        labels: int32 [batch].
        k: at least 1.

    Returns:
        bool [batch].
    """
    target = jnp.take_along_axis(logits, labels.reshape(-1, 1), axis=-1)
    at_or_above = jnp.sum(~(logits < target), axis=-1)
    return (at_or_above <= k) & ~jnp.isnan(target).reshape(-1)
