"""Metrics as sums over examples, and their mean and deviation over several seeds."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Metrics:
    """Sums over examples, divided once at the end; batch means are never averaged.

    Attributes:
        loss: sum of the examples' losses in nats, float32 [].
        correct: number of correct predictions, float32 [] (exact up to 2**24).
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

        `losses` and `mask` are float32 [batch], the others as in `is_among_top`.
        """
        correct = is_among_top(logits, labels, k)
        # `where`, not a product: the sums take no NaN of padding (a gradient would).
        return cls(
            loss=jnp.sum(jnp.where(mask > 0, losses, 0.0)),
            correct=jnp.sum(jnp.where(mask > 0, correct.astype(jnp.float32), 0.0)),
            count=jnp.sum(mask),
        )


def is_among_top(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Returns whether fewer than `k` other classes score at or above the label's class.

    A tie counts as wrong, while `tf.nn.in_top_k` counts it as right: a network that
    gives every class the same score is never correct here, not always. The prediction
    is wrong if the label's score is NaN; NaN in another class counts as above it.

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


# Suffixes of the keys that `with_spread` adds.
SPREAD_SUFFIXES = ("/mean", "/std")


def with_spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` with `<key>/mean` and `<key>/std` added after each list.

    A list holds the values of two or more seeds: mean = sum(x) / n and
    std = sqrt(sum((x - mean)**2) / (n - 1)). Other values are kept as they are.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[key] = value
        if isinstance(value, list):
            # NaN or infinity shows in the results; NumPy need not warn about it.
            with np.errstate(invalid="ignore"):
                found[f"{key}/mean"] = float(np.mean(value))
                found[f"{key}/std"] = float(np.std(value, ddof=1))
    return found


def mean_of(values: Mapping[str, Any], key: str) -> float:
    """Returns the value of `key`, or its mean over the seeds if there are several."""
    return values.get(f"{key}/mean", values[key])


def of_seed(values: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Returns the k-th seed's values: item k of every list, and all other values."""
    return {
        key: value[k] if isinstance(value, list) else value
        for key, value in values.items()
    }


def first_not_finite(value: float | list[float], seed: int) -> str:
    """Returns the first value that is not finite, with its seed; "" if all are finite.

    A list holds the values of `seed`, `seed + 1` and so on.
    """
    bad = ~np.isfinite(value)
    if not bad.any():
        return ""
    if not isinstance(value, list):
        return str(value)
    k = int(np.argmax(bad))
    return f"{value[k]} for seed {seed + k}"
