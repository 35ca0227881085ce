"""The chapter's network against the same weights run through tf.nn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.models import summary
from cnnjax.models.cifar import CifarCNN
from cnnjax.models.layers import drawn_flat
from cnnjax.recipe import make_recipe

SHAPES = {
    "conv1": ((5, 5, 3, 64), (64,)),
    "conv2": ((5, 5, 64, 64), (64,)),
    "local3": ((6 * 6 * 64, 384), (384,)),
    "local4": ((384, 192), (192,)),
    "logits": ((192, 10), (10,)),
}


@pytest.fixture(scope="module")
def params():
    images = jnp.zeros((1, 24, 24, 3))
    return CifarCNN().init(jax.random.key(0), images)["params"]


def relative(ours, theirs) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def test_the_chapter_s_parameters(params) -> None:
    found = {k: (v["kernel"].shape, v["bias"].shape) for k, v in params.items()}
    assert found == SHAPES
    total = sum(np.prod(kernel) + np.prod(bias) for kernel, bias in SHAPES.values())
    assert optax.tree.size(params) == total == 1_068_298


def test_initial_weights_are_the_chapter_s(params) -> None:
    spread = {"conv1": 0.05, "conv2": 0.05, "local3": 0.04, "local4": 0.04}
    start = {"conv1": 0.0, "conv2": 0.1, "local3": 0.1, "local4": 0.1, "logits": 0.0}
    for name, stddev in (spread | {"logits": 1 / 192}).items():
        kernel = np.asarray(params[name]["kernel"])
        # A normal cut at two deviations keeps 0.8796 of its spread.
        error = 4 / np.sqrt(2 * kernel.size)
        np.testing.assert_allclose(kernel.std(), 0.8796 * stddev, rtol=error + 0.005)
        assert np.abs(kernel).max() <= 2.0001 * stddev
        np.testing.assert_array_equal(params[name]["bias"], np.float32(start[name]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(5, 5, 3, 7), (9, 4), (11,), (3, 0)])
def test_initial_weights_are_those_of_flax(key, shape, dtype) -> None:
    """Drawn as one axis, they are the same to the bit."""
    draw = nn.initializers.truncated_normal(0.05)
    flat = drawn_flat(draw)(key, shape, dtype)
    assert flat.dtype == dtype
    np.testing.assert_array_equal(flat, draw(key, shape, dtype))


def test_logits_and_gradients_are_tensorflow_s(params) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    images = rng.standard_normal((8, 24, 24, 3)).astype(np.float32)
    labels = rng.integers(0, 10, 8)
    # Larger biases than the initial ones, so that every term is felt.
    params = jax.tree.map(
        lambda leaf: leaf + 0.05 * rng.standard_normal(leaf.shape).astype(np.float32),
        params,
    )

    def loss(params):
        logits = CifarCNN().apply({"params": params}, images)
        chosen = jax.nn.log_softmax(logits)[jnp.arange(8), labels]
        return -jnp.mean(chosen), logits

    grads, logits = jax.grad(loss, has_aux=True)(params)

    weights = {
        name: {k: tf.Variable(np.asarray(v)) for k, v in layer.items()}
        for name, layer in params.items()
    }

    def conv(x, layer):
        x = tf.nn.conv2d(x, layer["kernel"], 1, "SAME")
        return tf.nn.relu(tf.nn.bias_add(x, layer["bias"]))

    def norm(x):
        return tf.nn.local_response_normalization(x, 4, 1.0, 0.001 / 9, 0.75)

    def pool(x):
        return tf.nn.max_pool2d(x, 3, 2, "SAME")

    def dense(x, layer):
        return tf.matmul(x, layer["kernel"]) + layer["bias"]

    with tf.GradientTape() as tape:
        x = norm(pool(conv(images, weights["conv1"])))
        x = pool(norm(conv(x, weights["conv2"])))
        x = tf.reshape(x, [8, -1])
        x = tf.nn.relu(dense(x, weights["local3"]))
        x = tf.nn.relu(dense(x, weights["local4"]))
        expected = dense(x, weights["logits"])
        total = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, expected)
        )
    assert relative(logits, expected.numpy()) < 3e-5
    theirs = tape.gradient(total, weights)
    for name, layer in grads.items():
        for kind, gradient in layer.items():
            assert relative(gradient, theirs[name][kind].numpy()) < 3e-5, (name, kind)


def test_multiply_adds_by_formula() -> None:
    found = summary.layers(CifarCNN(), (24, 24, 3))
    assert [layer.multiply_adds for layer in found] == [
        24 * 24 * 5 * 5 * 3 * 64,
        12 * 12 * 5 * 5 * 64 * 64,
        6 * 6 * 64 * 384,
        384 * 192,
        192 * 10,
    ]
    total = sum(layer.multiply_adds for layer in found)
    assert 18.4e6 < total < 18.6e6
    text = summary.table(found)
    assert "1,068,298" in text
    assert f"{total:,}" in text
    assert f"{2 * total:,} arithmetic operations" in text


def test_without_lrn_nothing_is_normalised(params) -> None:
    images = jax.random.normal(jax.random.key(1), (2, 24, 24, 3))
    off, nothing, usual = (
        jax.jit(model.apply)({"params": params}, images)
        for model in (CifarCNN(lrn=False), CifarCNN(lrn_alpha=0.0), CifarCNN())
    )
    np.testing.assert_allclose(off, nothing, rtol=1e-5, atol=1e-6)
    assert relative(usual, off) > 1e-5


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="got activation='gelu', need one of relu, s"):
        make_recipe(CifarCNN(activation="gelu"))


@pytest.mark.parametrize("width", [0.25, 2.0])
def test_width_scales_every_hidden_layer(width: float) -> None:
    images = jnp.zeros((1, 24, 24, 3))
    shapes = jax.eval_shape(CifarCNN(width=width).init, jax.random.key(0), images)
    units = {k: v["bias"].shape[0] for k, v in shapes["params"].items()}
    expected = {"conv1": 64, "conv2": 64, "local3": 384, "local4": 192}
    assert units == {k: int(v * width) for k, v in expected.items()} | {"logits": 10}


def test_examples_do_not_see_each_other(params) -> None:
    images = jax.random.normal(jax.random.key(1), (6, 24, 24, 3))
    order = jnp.array([3, 0, 5, 1, 4, 2])
    apply = jax.jit(CifarCNN().apply)
    logits = apply({"params": params}, images)
    shuffled = apply({"params": params}, images[order])
    np.testing.assert_allclose(shuffled, logits[order], rtol=1e-5, atol=1e-6)
