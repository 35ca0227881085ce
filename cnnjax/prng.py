"""Key streams named by their purpose; every random draw in JAX takes its key from one.

A stream's key is the run's seed folded with the stream's name; a draw for one example
also folds in the example's position in the run. No key is split or carried from step to
step, so there is no generator state that a checkpoint would have to save.
"""

import zlib

import jax

PARAMS = "params"
DROPOUT = "dropout"
DATA = "data"

# Counters in place of a state, so that a draw is the same on every device. Named at
# every key, as JAX takes the default from the environment.
IMPLEMENTATION = "threefry2x32"


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of the stream `name`: `fold_in(key, crc32(name))`."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def from_seed(seed: int | jax.Array, name: str) -> jax.Array:
    """Returns the key of a run's stream `name`: `PARAMS`, `DROPOUT` or `DATA`.

    `seed` is in [0, 2**32): a Python integer or uint32 [].
    """
    return stream(jax.random.key(seed, impl=IMPLEMENTATION), name)


def at_positions(key: jax.Array, positions: jax.Array) -> jax.Array:
    """Returns one typed key for each example, [batch]: `fold_in(key, position)`.

    `positions` is uint32 [batch]: `step * batch_size + i` for row i of a step's batch.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
