import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import network
from cnnjax.data.augment import Preprocessing


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, dropout_keys=None):
        return nn.Dense(5)(images.reshape(images.shape[0], -1))


def test_saliency_of_a_linear_network_is_its_weights() -> None:
    """A gradient that can be written down, and zero where nothing is looked at."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4 * 4 * 3, 5)).astype(np.float32)
    params = {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(5)}}
    logits = network.make_logits(Linear(), params, Preprocessing(4, (), "unit"))
    images = rng.integers(0, 256, (7, 8, 10, 3), np.uint8)
    saliency = network.make_saliency(logits)(jnp.asarray(images))
    likeliest = np.asarray(logits(jnp.asarray(images))).argmax(-1)
    expected = np.zeros((7, 8, 10))
    weights = np.abs(kernel / 255).reshape(4, 4, 3, 5).max(2)
    expected[:, 2:6, 3:7] = weights[..., likeliest].transpose(2, 0, 1)
    assert len(set(likeliest)) > 1
    np.testing.assert_allclose(saliency, expected, rtol=1e-5)


def test_batches_change_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3), np.uint8)
    for size in (1, 3, 7, 8):
        found = network.in_batches(lambda x: x * jnp.uint8(2), images, size)
        np.testing.assert_array_equal(found, images * np.uint8(2))


def test_probabilities_are_those_of_the_softmax(key: jax.Array) -> None:
    logits = jax.random.normal(key, (3, 5))
    found = network.make_probabilities(lambda images: logits)(jnp.zeros(3))
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
