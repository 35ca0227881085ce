"""Activations are those of TensorFlow's operations in the tutorial's order."""

from functools import partial

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cnnjax.data.tensorflow_import import import_tensorflow
from cnnjax.models import MODELS
from cnnjax.models.summary import activations


def made(name, shape, key, **options):
    model = MODELS[name](**options)
    params_key, images_key = jax.random.split(key)
    images = jax.random.normal(images_key, (3, *shape))
    return model, jax.jit(model.init)(params_key, images)["params"], images


def test_the_tutorials_layers_before_their_pooling(key):
    tf = import_tensorflow()
    model, params, images = made("CifarCNN", (24, 24, 3), key, width=0.25)
    found = jax.jit(partial(activations, model))(params, images)
    assert found.keys() == {"conv1", "conv2", "local3", "local4", "logits"}
    weights = jax.tree.map(np.asarray, params)
    x = np.asarray(images)
    x = tf.nn.relu(
        tf.nn.conv2d(x, weights["conv1"]["kernel"], 1, "SAME")
        + weights["conv1"]["bias"]
    )
    assert found["conv1"].shape == (3, 24, 24, 16)
    assert_allclose(found["conv1"], x, rtol=1e-4, atol=1e-5)
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    x = tf.nn.lrn(x, 4, 1.0, 0.001 / 9, 0.75)
    x = tf.nn.conv2d(x, weights["conv2"]["kernel"], 1, "SAME")
    x = tf.nn.relu(x + weights["conv2"]["bias"])
    assert_allclose(found["conv2"], x, rtol=1e-4, atol=1e-5)
    for layer in ("local3", "local4"):
        assert found[layer].min() == 0 < found[layer].max()
    logits = jax.jit(model.apply)({"params": params}, images)
    assert_allclose(found["logits"], logits, rtol=1e-5, atol=1e-6)
    assert found["logits"].min() < 0


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("SimpleCNN", {}, ["conv1", "conv2", "fc1", "logits"]),
        ("MLP", {}, ["hidden", "logits"]),
        ("LeNet5", {"variant": "1998"}, ["C1", "C3", "C5", "F6"]),
        ("LeNet5", {"variant": "modern"}, ["C1", "C3", "C5", "F6", "logits"]),
    ],
)
def test_every_network_has_its_layers(name, options, layers):
    model = MODELS[name](**options)

    def look(images):
        params = model.init(jax.random.key(0), images)["params"]
        return list(activations(model, params, images))

    found = []
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), np.float32)
    jax.eval_shape(lambda x: found.extend(look(x)), images)
    assert found == layers


def test_lenet_squashes(key):
    model, params, images = made("LeNet5", (28, 28, 1), key, variant="modern")
    found = jax.jit(partial(activations, model))(params, images)
    c5 = np.asarray(found["C5"]).reshape(3, -1)
    weights = jax.tree.map(np.asarray, params["F6"])
    f6 = c5 @ weights["kernel"] + weights["bias"]
    # LeCun et al. 1998, appendix A: 1.7159 tanh(2 a / 3).
    assert_allclose(found["F6"], 1.7159 * np.tanh(2 / 3 * f6), rtol=1e-4, atol=1e-5)
