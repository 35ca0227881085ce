"""Dropout with one key for each example."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, keep_prob: float, keys: jax.Array) -> jax.Array:
    """Sets each value to zero with probability 1 - keep_prob and scales up the others.

    out[i] = x[i] * mask[i] / keep_prob,  mask[i] ~ Bernoulli(keep_prob) from keys[i]

    An example's mask depends only on its own key, so it is the same however the batch
    is split over devices. Dividing by `keep_prob` keeps the expected value unchanged,
    so that evaluation needs no scaling.

    Args:
        x: float [batch, ...].
        keep_prob: probability of keeping a value, in (0, 1]; 1 returns `x`.
        keys: typed PRNG keys [batch], from `prng.at_positions`.

    Returns:
        same shape and dtype as `x`.

    Raises:
        ValueError: `keep_prob` is outside (0, 1].

    Source: Srivastava et al. 2014, sec. 10; `tf.nn.dropout`.
    """
    if not 0 < keep_prob <= 1:
        raise ValueError(
            f"got keep_prob={keep_prob}, need 0 < keep_prob <= 1 "
            "(the probability of keeping a value); 1 turns dropout off"
        )
    if keep_prob == 1:
        return x
    mask = jax.vmap(lambda key: jax.random.bernoulli(key, keep_prob, x.shape[1:]))(keys)
    return jnp.where(mask, x / keep_prob, jnp.zeros_like(x))
