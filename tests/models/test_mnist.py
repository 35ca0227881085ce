from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import prng
from cnnjax.models.mnist import MLP, SimpleCNN
from cnnjax.ops.dropout import dropout

BATCH = 8


@partial(jax.jit, static_argnums=0)
def init(model: nn.Module, key: jax.Array) -> dict:
    return model.init(key, jnp.zeros((1, 28, 28, 1)))["params"]


@pytest.fixture(scope="module")
def cnn_params() -> dict:
    return init(SimpleCNN(), jax.random.key(0))


def count(params: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def relative(got: jax.Array, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.random((BATCH, 28, 28, 1), np.float32)


@pytest.fixture
def dropout_keys() -> jax.Array:
    positions = jnp.arange(BATCH, dtype=jnp.uint32)
    return prng.at_positions(prng.from_seed(0, prng.DROPOUT), positions)


def mask_of(keep_prob: float, keys: jax.Array | None, units: int) -> np.ndarray:
    """What multiplies the hidden layer: the oracles' dropout."""
    ones = jnp.ones((BATCH, units))
    return np.asarray(ones if keys is None else dropout(ones, keep_prob, keys))


def test_simple_cnn_starts_as_in_the_chapter(cnn_params: dict) -> None:
    sizes = {name: count(layer) for name, layer in cnn_params.items()}
    assert sizes == {
        "conv1": 5 * 5 * 1 * 32 + 32,
        "conv2": 5 * 5 * 32 * 64 + 64,
        "fc1": 7 * 7 * 64 * 1024 + 1024,
        "logits": 1024 * 10 + 10,
    }
    assert sum(sizes.values()) == 3_274_634
    for layer in cnn_params.values():
        np.testing.assert_array_equal(layer["bias"], np.float32(0.1))
        assert np.abs(layer["kernel"]).max() <= 0.2
    # A normal cut at two standard deviations keeps 0.8796 of its own.
    np.testing.assert_allclose(np.std(cnn_params["fc1"]["kernel"]), 0.08796, rtol=2e-3)


@pytest.mark.parametrize("training", [False, True])
def test_simple_cnn_equals_tensorflow(
    rng: np.random.Generator,
    cnn_params: dict,
    images: np.ndarray,
    dropout_keys: jax.Array,
    training: bool,
) -> None:
    """Logits and gradients of the same weights, in the chapter's order of operations.

    Here the pool comes before bias and ReLU, there after them.
    """
    import tensorflow as tf

    keys = dropout_keys if training else None
    # Half of a digit's picture is background, where all of a pool's values are equal.
    images[:, :, :14] = 0
    cotangent = rng.standard_normal((BATCH, 10), np.float32)

    @jax.jit
    def run(params: dict) -> tuple[jax.Array, dict]:
        apply = partial(SimpleCNN().apply, images=images, dropout_keys=keys)
        logits, vjp = jax.vjp(lambda params: apply({"params": params}), params)
        return logits, vjp(jnp.asarray(cotangent))[0]

    logits, gradients = run(cnn_params)

    w = jax.tree.map(lambda leaf: tf.Variable(np.asarray(leaf)), cnn_params)
    with tf.GradientTape() as tape:
        x = tf.constant(images)
        for name in ("conv1", "conv2"):
            x = tf.nn.conv2d(x, w[name]["kernel"], 1, "SAME") + w[name]["bias"]
            x = tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "SAME")
        x = tf.reshape(x, [BATCH, 7 * 7 * 64])
        x = tf.nn.relu(tf.matmul(x, w["fc1"]["kernel"]) + w["fc1"]["bias"])
        x = x * mask_of(0.5, keys, 1024)
        expected = tf.matmul(x, w["logits"]["kernel"]) + w["logits"]["bias"]
        scalar = tf.reduce_sum(expected * cotangent)
    expected_gradients = tape.gradient(scalar, w)

    assert relative(logits, expected.numpy()) < 1e-5
    errors = jax.tree.map(
        lambda got, want: relative(got, want.numpy()), gradients, expected_gradients
    )
    assert max(jax.tree.leaves(errors)) < 1e-5, errors


def test_mlp_starts_as_in_the_chapter(key: jax.Array, images: np.ndarray) -> None:
    params = init(MLP(), key)

    sizes = {name: count(layer) for name, layer in params.items()}
    assert sizes == {"hidden": 784 * 300 + 300, "logits": 300 * 10 + 10}
    assert not params["hidden"]["bias"].any()
    assert np.abs(params["hidden"]["kernel"]).max() <= 0.2
    np.testing.assert_allclose(np.std(params["hidden"]["kernel"]), 0.08796, rtol=1e-2)
    np.testing.assert_array_equal(MLP().apply({"params": params}, images), 0)


@pytest.mark.parametrize("training", [False, True])
def test_mlp_equals_numpy(
    rng: np.random.Generator,
    images: np.ndarray,
    dropout_keys: jax.Array,
    training: bool,
) -> None:
    keys = dropout_keys if training else None
    model = MLP(num_classes=7, hidden=50)
    # The output layer starts from zeros, which would hide what comes before it.
    w = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32),
        jax.eval_shape(partial(init, model), jax.random.key(0)),
    )
    got = jax.jit(model.apply)({"params": w}, images, dropout_keys=keys)

    x = images.reshape(BATCH, 784)
    x = np.maximum(x @ w["hidden"]["kernel"] + w["hidden"]["bias"], 0)
    x = x * mask_of(0.75, keys, 50)
    assert relative(got, x @ w["logits"]["kernel"] + w["logits"]["bias"]) < 1e-5


def test_half_precision_computes_but_does_not_store(
    cnn_params: dict, images: np.ndarray
) -> None:
    half = SimpleCNN(dtype=jnp.dtype(jnp.bfloat16))
    params = jax.eval_shape(partial(init, half), jax.random.key(0))
    got = jax.jit(half.apply)({"params": cnn_params}, images)
    want = jax.jit(SimpleCNN().apply)({"params": cnn_params}, images)

    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert got.dtype == jnp.float32
    # bfloat16 has 8 bits: far from float32's 1e-7, and still the same network.
    assert 1e-4 < relative(got, np.asarray(want)) < 3e-2


@pytest.mark.parametrize("model", [SimpleCNN(), MLP()])
@pytest.mark.parametrize("shape", [(2, 28, 28, 3), (2, 32, 32, 1), (28, 28, 1)])
def test_other_images_are_refused(
    key: jax.Array, model: nn.Module, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"got images of shape .*, need \[batch, 28"):
        model.init(key, jnp.zeros(shape))
