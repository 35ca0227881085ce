import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import prng


def bits(keys: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_a_traced_seed_gives_the_same_stream(seed: int) -> None:
    eager = prng.from_seed(seed, prng.DATA)
    traced = jax.jit(lambda s: prng.from_seed(s, prng.DATA))(jnp.uint32(seed))
    np.testing.assert_array_equal(bits(eager), bits(traced))


def test_streams_and_positions_differ(key: jax.Array) -> None:
    names = (prng.PARAMS, prng.DROPOUT, prng.DATA)
    positions = jnp.arange(1000, dtype=jnp.uint32)
    keys = [
        bits(prng.at_positions(prng.stream(key, name), positions)) for name in names
    ]
    everything = np.concatenate(keys)
    assert len(np.unique(everything, axis=0)) == 3000


def test_a_position_has_the_same_key_in_any_batch(key: jax.Array) -> None:
    whole = bits(prng.at_positions(key, jnp.arange(10, dtype=jnp.uint32)))
    part = bits(prng.at_positions(key, jnp.arange(4, 7, dtype=jnp.uint32)))
    np.testing.assert_array_equal(whole[4:7], part)
