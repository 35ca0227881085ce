"""Every random number comes from here: key streams named by what they are for.

A stream is the run's seed folded with a name; a draw for one example folds in the
example's position in the run. Nothing is split and nothing is carried from step to
step, so no generator state exists that a checkpoint could lose.
"""

import zlib

import jax

PARAMS = "params"
DROPOUT = "dropout"
DATA = "data"


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of the stream `name`: `fold_in(key, crc32(name))`.

    Args:
        key: a typed PRNG key, shape [].
        name: what the stream is for.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def from_seed(seed: int | jax.Array, name: str) -> jax.Array:
    """Returns the key of the stream `name` of a run.

    Args:
        seed: the run's seed, in [0, 2**32); a Python integer or uint32 [].
        name: `PARAMS`, `DROPOUT` or `DATA`.
    """
    return stream(jax.random.key(seed), name)


def at_positions(key: jax.Array, positions: jax.Array) -> jax.Array:
    """Returns one key for each example: `fold_in(key, position)`.

    Args:
        key: the key of a stream, shape [].
        positions: uint32 [batch], `step * batch_size + i` for the i-th of a batch.

    Returns:
        typed keys [batch].
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
