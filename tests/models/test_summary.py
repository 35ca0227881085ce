"""Sizes by formula; activations are TensorFlow's in the tutorial's order."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cnnjax.data.tensorflow_import import import_tensorflow
from cnnjax.models import MODELS, summary
from cnnjax.models.forward import init_variables
from cnnjax.models.summary import activations


def made(name, shape, key, **options):
    model = MODELS[name](**options)
    params_key, images_key = jax.random.split(key)
    images = jax.random.normal(images_key, (3, *shape))
    return model, jax.jit(model.init)(params_key, images), images


def test_the_tutorials_layers_before_their_pooling(key):
    tf = import_tensorflow()
    model, variables, images = made("CifarCNN", (24, 24, 3), key, width=0.25)
    found = jax.jit(partial(activations, model))(variables, images)
    assert found.keys() == {"conv1", "conv2", "local3", "local4", "logits"}
    weights = jax.tree.map(np.asarray, variables["params"])
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
    logits = jax.jit(model.apply)(variables, images)
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
        variables = model.init(jax.random.key(0), images)
        return list(activations(model, variables, images))

    found = []
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), np.float32)
    jax.eval_shape(lambda x: found.extend(look(x)), images)
    assert found == layers


def test_lenet_squashes(key):
    model, variables, images = made("LeNet5", (28, 28, 1), key, variant="modern")
    found = jax.jit(partial(activations, model))(variables, images)
    c5 = np.asarray(found["C5"]).reshape(3, -1)
    weights = jax.tree.map(np.asarray, variables["params"]["F6"])
    f6 = c5 @ weights["kernel"] + weights["bias"]
    # LeCun et al. 1998, appendix A: 1.7159 tanh(2 a / 3).
    assert_allclose(found["F6"], 1.7159 * np.tanh(2 / 3 * f6), rtol=1e-4, atol=1e-5)


def test_multiply_adds_of_layers_that_do_not_count_themselves() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array) -> jax.Array:
            x = nn.Conv(6, (3, 3), strides=2, feature_group_count=3)(images)
            return nn.Dense(10)(nn.LayerNorm()(x).reshape(len(x), -1))

    conv, norm, dense = summary.layers(Net(), (8, 8, 3))
    assert conv.multiply_adds == 4 * 4 * 3 * 3 * 1 * 6
    assert (norm.num_params, norm.multiply_adds) == (12, 0)
    assert dense.multiply_adds == 4 * 4 * 6 * 10


def test_a_product_with_several_axes_has_no_more_multiply_adds() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array) -> jax.Array:
            x = nn.DenseGeneral((4, 2))(images)  # as the heads of an attention
            return nn.DenseGeneral(10, axis=(-4, -3, -2, -1))(x)

    heads, whole = summary.layers(Net(), (5, 5, 8))
    assert heads.multiply_adds == 5 * 5 * 8 * (4 * 2)
    assert whole.multiply_adds == 5 * 5 * 4 * 2 * 10


@pytest.mark.parametrize(
    ("name", "options", "shape", "layer"),
    [
        ("CifarCNN", {"width": 0.25}, (24, 24, 3), "conv1"),
        ("SimpleCNN", {}, (28, 28, 1), "conv1"),
        ("MLP", {}, (28, 28, 1), None),
        ("LeNet5", {"variant": "1998"}, (28, 28, 1), "C1"),
        ("LeNet5", {"variant": "modern"}, (28, 28, 1), "C1"),
    ],
)
def test_the_first_kernel(name, options, shape, layer):
    model = MODELS[name](**options)
    make = partial(init_variables, model, image_shape=shape)
    params = jax.eval_shape(make, jax.random.key(0))["params"]
    kernel = summary.first_kernel(model, params, shape)
    if layer is None:
        assert kernel is None
    else:
        assert kernel is params[layer]["kernel"]


def test_a_first_kernel_that_reads_other_pictures_is_not_shown(key) -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.Conv(4, (3, 3))(nn.Dense(16)(x))
            return nn.Dense(3)(x.reshape(len(x), -1))

    shape = (8, 8, 3)
    params = init_variables(Net(), key, shape)["params"]
    assert params["Conv_0"]["kernel"].shape == (3, 3, 16, 4)
    assert summary.first_kernel(Net(), params, shape) is None


def test_layers_without_an_input_and_none_at_all(key) -> None:
    class Place(nn.Module):
        @nn.compact
        def __call__(self) -> jax.Array:
            return self.param("place", nn.initializers.ones, (1, 5))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(5)(x.reshape(len(x), -1)) + Place()()

    place, dense = sorted(
        summary.layers(Net(), (4, 4, 1)), key=lambda one: one.num_params
    )
    assert place == summary.Layer("Place_0", (5,), 5, 0)
    assert dense.num_params == 16 * 5 + 5
    assert summary.table([]).splitlines()[1].split() == ["all", "0", "0"]


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(self.features, (3, 3), use_bias=False)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


class Stock(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Block(4)(nn.LayerNorm(use_bias=False)(x), train)
        x = Block(6, name="second")(x, train).mean((1, 2))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10, name="logits")(x)


def test_a_stock_network_of_nested_modules(key):
    shape = (8, 8, 3)
    variables = jax.jit(partial(init_variables, Stock(), image_shape=shape))(key)
    found = {layer.name: layer for layer in summary.layers(Stock(), shape)}
    sizes = {
        "LayerNorm_0": ((8, 8, 3), 3, 0),
        "Block_0/Conv_0": ((8, 8, 4), 9 * 3 * 4, 64 * 9 * 3 * 4),
        "Block_0/BatchNorm_0": ((8, 8, 4), 2 * 4, 0),
        "second/Conv_0": ((8, 8, 6), 9 * 4 * 6, 64 * 9 * 4 * 6),
        "second/BatchNorm_0": ((8, 8, 6), 2 * 6, 0),
        "logits": ((10,), 6 * 10 + 10, 6 * 10),
    }
    assert list(found) == list(sizes)
    for name, layer in found.items():
        has = (layer.output_shape, layer.num_params, layer.multiply_adds)
        assert has == sizes[name]
    total = sum(layer.num_params for layer in found.values())
    assert total == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    kernel = summary.first_kernel(Stock(), variables["params"], shape)
    assert kernel is variables["params"]["Block_0"]["Conv_0"]["kernel"]

    images = jax.random.normal(key, (2, *shape))
    outputs = jax.jit(partial(activations, Stock()))(variables, images)
    assert outputs.keys() == {"Block_0/Conv_0", "second/Conv_0", "logits"}
    logits = jax.jit(partial(Stock().apply, train=False))(variables, images)
    assert_allclose(outputs["logits"], logits, rtol=1e-5, atol=1e-6)
    assert outputs["second/Conv_0"].min() == 0


def test_a_table_has_room_for_long_names():
    text = summary.table(summary.layers(Stock(), (8, 8, 3)))
    *rows, last = text.splitlines()
    assert len({len(row) for row in rows}) == 1, "its columns are in line"
    assert last.endswith("arithmetic operations forward per image")


def test_modules_of_other_forms(key) -> None:
    """Parameters of the network itself, several outputs, named inputs, loops."""

    class Two(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return x * self.param("kernel", nn.initializers.ones, (1, 1, 1, 1)), x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x, _ = Two()(x)
            x = nn.RNN(nn.LSTMCell(4))(x.reshape(len(x), 8, -1)).mean(1)
            x = nn.Dense(3)(inputs=nn.remat(nn.Dense)(5)(x))
            return x @ self.param("weight", nn.initializers.ones, (3, 2))

    shape = (8, 8, 3)
    variables = jax.jit(partial(init_variables, Net(), image_shape=shape))(key)
    layers = summary.layers(Net(), shape)
    found = {layer.name: layer for layer in layers}
    assert len(found) == len(layers), "a layer in a loop is one layer"
    sizes = [(name, found[name].num_params) for name in ("Two_0", "Dense_0", "")]
    assert sizes == [("Two_0", 1), ("Dense_0", 5 * 3 + 3), ("", 6)]
    assert found["Two_0"].output_shape == shape and found[""].output_shape == (2,)
    total = sum(layer.num_params for layer in found.values())
    assert total == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert "multiply-adds" in summary.table(list(found.values()))
    kernel = summary.first_kernel(Net(), variables["params"], shape)
    assert kernel is variables["params"]["Two_0"]["kernel"]
    seen = jax.jit(partial(activations, Net()))(variables, np.ones((2, *shape)))
    assert seen["Dense_0"].shape == (2, 3) and "Two_0" not in seen


def test_a_network_without_a_kernel(key) -> None:
    class Bare(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return x.mean((1, 2)) @ self.param("w", nn.initializers.ones, (3, 2))

    variables = init_variables(Bare(), key, (8, 8, 3))
    assert activations(Bare(), variables, np.ones((2, 8, 8, 3))) == {}
