import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from cnnjax import prng
from cnnjax.ops.dropout import dropout

KEEP = 0.75
BATCH = 16


def keys_at(first: int) -> jax.Array:
    """Keys of the examples at positions first, first + 1, ..."""
    positions = jnp.arange(first, first + BATCH, dtype=jnp.uint32)
    return prng.at_positions(prng.from_seed(0, prng.DROPOUT), positions)


@pytest.fixture
def x(key: jax.Array) -> jax.Array:
    return jax.random.normal(key, (BATCH, 5, 40))


@pytest.mark.parametrize("keep_prob", [0.1, 0.5, 0.75])
def test_keeps_the_expectation(keep_prob: float) -> None:
    count = BATCH * 20_000
    out = np.asarray(dropout(jnp.ones((BATCH, 20_000)), keep_prob, keys_at(0)))

    kept = out != 0
    np.testing.assert_allclose(out[kept], 1 / keep_prob, rtol=1e-6)
    # Four standard deviations of the mean of `count` Bernoulli draws.
    tolerance = 4 * np.sqrt(keep_prob * (1 - keep_prob) / count)
    assert abs(kept.mean() - keep_prob) < tolerance


def test_mask_belongs_to_the_position() -> None:
    """Masks differ by example and step; an example's is the same wherever it stands."""
    ones = jnp.ones((BATCH, 200))
    first = np.asarray(dropout(ones, KEEP, keys_at(0)))
    later = np.asarray(dropout(ones, KEEP, keys_at(BATCH - 4)))

    masks = np.concatenate([first, later[4:]])
    assert len(np.unique(masks, axis=0)) == len(masks)
    np.testing.assert_array_equal(first[-4:], later[:4])


@pytest.mark.parametrize("num_devices", [2, 8])
def test_same_masks_on_any_number_of_devices(x: jax.Array, num_devices: int) -> None:
    def layer(x: jax.Array, keys: jax.Array) -> jax.Array:
        return dropout(x, KEEP, keys)

    keys = keys_at(0)
    whole = np.asarray(layer(x, keys))

    mesh = Mesh(jax.devices()[:num_devices], "batch")
    spec = PartitionSpec("batch")
    sharded = jax.jit(jax.shard_map(layer, mesh=mesh, in_specs=spec, out_specs=spec))
    np.testing.assert_array_equal(whole, sharded(x, keys))

    split = (num_devices, BATCH // num_devices)
    mapped = jax.pmap(layer)(x.reshape(*split, 5, 40), keys.reshape(split))
    np.testing.assert_array_equal(whole, mapped.reshape(x.shape))


def test_gradient_has_the_mask_of_the_output(x: jax.Array) -> None:
    out, vjp = jax.vjp(lambda x: dropout(x, KEEP, keys_at(0)), x)
    (gradient,) = vjp(jnp.ones_like(out))

    np.testing.assert_array_equal(
        gradient, np.where(out == 0, 0, 1 / jnp.float32(KEEP))
    )


def test_dtype_is_kept_and_a_keep_prob_of_one_changes_nothing(x: jax.Array) -> None:
    half = x.astype(jnp.bfloat16)
    assert dropout(half, KEEP, keys_at(0)).dtype == jnp.bfloat16
    np.testing.assert_array_equal(dropout(x, 1, keys_at(0)), x)


@pytest.mark.parametrize("keep_prob", [0, -0.1, 1.5, float("nan")])
def test_keep_prob_is_a_probability(x: jax.Array, keep_prob: float) -> None:
    with pytest.raises(ValueError, match=r"got keep_prob=.*, need 0 < keep_prob <= 1"):
        dropout(x, keep_prob, keys_at(0))
