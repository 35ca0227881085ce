"""Sums over examples that merge, and are divided once."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


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


# What stands behind the key of a figure of many seeds.
SPREAD_SUFFIXES = ("/mean", "/std")


def with_spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures, with `<key>/mean` and `<key>/std` behind each list.

    mean = sum(x) / n,  std = sqrt(sum((x - mean)**2) / (n - 1))

    Args:
        values: figures by key; those of many seeds are lists of two or more.

    Returns:
        Figures that are no lists as they are: without any, `values`.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[key] = value
        if isinstance(value, list):
            # What is not finite has no mean, and says so by itself.
            with np.errstate(invalid="ignore"):
                found[f"{key}/mean"] = float(np.mean(value))
                found[f"{key}/std"] = float(np.std(value, ddof=1))
    return found


def mean_of(values: Mapping[str, Any], key: str) -> float:
    """Returns the figure, or its mean over the seeds where `with_spread` gave one."""
    return values.get(f"{key}/mean", values[key])


def of_seed(values: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Returns the figures of the k-th seed: of each list that one, and what is none."""
    return {
        key: value[k] if isinstance(value, list) else value
        for key, value in values.items()
    }


def first_not_finite(value: float | list[float], seed: int) -> str:
    """Returns the first value that is not finite, with its seed; "" if all are.

    Args:
        value: of one seed, or a list of those of `seed`, `seed + 1` and so on.
        seed: of the run.
    """
    bad = ~np.isfinite(value)
    if not bad.any():
        return ""
    if not isinstance(value, list):
        return str(value)
    k = int(np.argmax(bad))
    return f"{value[k]} for seed {seed + k}"
