"""What a trained network says of pictures, and of which of their pixels it says it."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import exporting, network
from cnnjax.config import default_config
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError
from cnnjax.loading import make_model
from cnnjax.models.forward import init_variables
from cnnjax.network import Network, load_network
from cnnjax.workdir import exports, files

SHAPE = (8, 10, 3)


class Linear(nn.Module):
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, images, dropout_keys=None):
        return nn.Dense(5, dtype=self.dtype)(images.reshape(images.shape[0], -1))


def linear(kernel: np.ndarray, **changed) -> Network:
    """The central 4x4 pixels in [0, 1], times a kernel [..., 48, 5]."""
    bias = jnp.zeros((*kernel.shape[:-2], 5))
    params = {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": bias}}
    made = Network(
        model=Linear(),
        variables={"params": params},
        num_seeds=1,
        seed_index=-1,
        weights="params",
        step=0,
        preprocessing=Preprocessing(4, ("flip", "contrast"), "unit"),
        image_shape=SHAPE,
        class_names=("a", "b", "c", "d", "e"),
        dataset="noise",
    )
    return dataclasses.replace(made, **changed)


def kernel_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(48, 5)).astype(np.float32)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, *SHAPE), np.uint8)


def softmax_by_hand(kernel: np.ndarray, images: np.ndarray) -> np.ndarray:
    central = images[:, 2:6, 3:7].reshape(len(images), -1) / 255
    exponentials = np.exp(central @ kernel.astype(np.float64))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_saliency_of_a_linear_network_is_its_weights(images) -> None:
    """A gradient that can be written down, and zero where nothing is looked at."""
    kernel = kernel_of(0)
    made = linear(kernel)
    saliency = made.saliency(jnp.asarray(images))
    likeliest = np.asarray(made.logits(jnp.asarray(images))).argmax(-1)
    expected = np.zeros((7, 8, 10))
    weights = np.abs(kernel / 255).reshape(4, 4, 3, 5).max(2)
    expected[:, 2:6, 3:7] = weights[..., likeliest].transpose(2, 0, 1)
    assert len(set(likeliest)) > 1
    np.testing.assert_allclose(saliency, expected, rtol=1e-5)


def test_a_network_that_computes_in_bfloat16_answers_in_float32(images) -> None:
    made = linear(kernel_of(1), model=Linear(jnp.dtype(jnp.bfloat16)))
    found = made.probabilities(jnp.asarray(images))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(found, softmax_by_hand(kernel_of(1), images), atol=0.02)


def test_probabilities_are_those_of_the_softmax(images) -> None:
    kernel = kernel_of(1)
    expected = softmax_by_hand(kernel, images)
    made = linear(kernel)
    found = made.probabilities(jnp.asarray(images))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for size in (3, 100):
        np.testing.assert_allclose(made.predict(images, size), expected, rtol=1e-5)


def test_several_networks_average_their_probabilities(images) -> None:
    kernels = np.stack([kernel_of(seed) for seed in range(3)])
    made = linear(kernels, num_seeds=3)
    expected = np.mean([softmax_by_hand(kernel, images) for kernel in kernels], axis=0)
    np.testing.assert_allclose(made.predict(images), expected, rtol=1e-5)
    logits = made.logits(jnp.asarray(images))
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, rtol=1e-5)
    saliency = made.saliency(jnp.asarray(images))
    assert saliency.shape == (7, 8, 10)
    assert np.all(saliency[:, 2:6, 3:7] > 0)


def test_pictures_that_do_not_fit(images) -> None:
    made = linear(kernel_of(0))
    for wrong in (images / 255, images[0], images[:, :7], images[..., :1], None, ["a"]):
        with pytest.raises(ValueError, match=r"got pictures .*, need uint8 \['n', 8,"):
            made.predict(wrong)
    with pytest.raises(ValueError, match=r"got pictures uint8 \[0, 8, .*n at least 1"):
        made.predict(images[:0])
    np.testing.assert_array_equal(made.predict([*images]), made.predict(images))


def test_predicting_again_compiles_nothing(images, monkeypatch) -> None:
    traced = []
    logits = Network.logits

    def counted(self: Network, images: jax.Array) -> jax.Array:
        traced.append(images.shape)
        return logits(self, images)

    monkeypatch.setattr(Network, "logits", counted)
    made = linear(kernel_of(0))
    first, again = made.predict(images), made.predict(images)
    np.testing.assert_array_equal(first, again)
    assert len(traced) == 1
    for count in range(1, 18):
        np.testing.assert_allclose(
            made.predict(images[:1].repeat(count, axis=0)),
            first[:1].repeat(count, 0),
            rtol=1e-6,
        )
    assert {shape[0] for shape in traced} == {1, 2, 4, 8, 16, 32}


def test_batches_change_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3), np.uint8)
    for size in (1, 3, 7, 8):
        found = network.in_batches(lambda x: x * jnp.uint8(2), images, size)
        np.testing.assert_array_equal(found, images * np.uint8(2))


CLASSES = tuple("abcdefghij")


@pytest.fixture
def write(tmp_path):
    """Returns (num_seeds, **changes of the card) -> a network; its file of weights."""

    def write(num_seeds: int, **changes) -> tuple[Network, str]:
        config = default_config("MLP")
        config.data.normalise = "unit"
        model = make_model(config, len(CLASSES))
        keys = jax.random.split(jax.random.key(0), num_seeds)
        states = [init_variables(model, key, (28, 28, 1)) for key in keys]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        made = Network(
            model=model,
            variables=stacked if num_seeds > 1 else states[0],
            num_seeds=num_seeds,
            seed_index=-1,
            weights="params",
            step=7,
            preprocessing=Preprocessing(0, (), "unit"),
            image_shape=(28, 28, 1),
            class_names=CLASSES,
            dataset="noise",
        )
        files.write_json(tmp_path / files.CONFIG, config.to_dict())
        data = {"name": "noise", "classes": CLASSES, "image_shape": [28, 28, 1]}
        files.write_json(tmp_path / files.MANIFEST, {"data": data})
        card = exporting.card(made, tmp_path) | changes
        path = tmp_path / "exported.safetensors"
        exports.write(path, exporting.to_safetensors(made), card)
        return made, str(path)

    return write


@pytest.mark.parametrize(("num_seeds", "seed_index"), [(1, -1), (2, -1), (2, 1)])
def test_exported_weights_are_the_network(write, num_seeds, seed_index) -> None:
    made, path = write(num_seeds)
    loaded = load_network(path, seed_index)
    expected = made.variables
    if seed_index >= 0:
        expected = jax.tree.map(lambda leaf: leaf[seed_index], expected)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, dict(expected))
    kept = dataclasses.replace(loaded, variables=made.variables)
    left = 1 if seed_index >= 0 else num_seeds
    assert kept == dataclasses.replace(made, num_seeds=left, seed_index=seed_index)
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    one = dataclasses.replace(made, variables=expected, num_seeds=left)
    np.testing.assert_array_equal(loaded.predict(images), one.predict(images))


def test_a_network_may_be_named_from_the_home_folder(write, monkeypatch) -> None:
    _, path = write(1)
    folder, _, name = path.rpartition("/")
    monkeypatch.setenv("HOME", folder)
    assert load_network(f"~/{name}").step == 7


def test_what_is_no_network_is_refused(write, tmp_path) -> None:
    with pytest.raises(InputError, match=r"got nothing, need the folder of a run, a "):
        load_network("nothing")
    _, path = write(1)
    with pytest.raises(InputError, match=r"got seed_index=1, need 0 to 0: .* has 1 "):
        load_network(path, 1)
    other = json.loads(json.dumps(default_config("LeNet5").to_dict()))
    _, path = write(1, config=other)
    with pytest.raises(InputError, match=r"and LeNet5 needs .*; export the run again"):
        load_network(path)
    _, path = write(1, networks=2)
    with pytest.raises(InputError, match=r"cannot be read as an export \(params\."):
        load_network(path)
    _, path = write(1, input={})
    with pytest.raises(InputError, match=r"cannot be read as an export \(KeyError"):
        load_network(path)
    write(1)
    file = tmp_path / "exported.safetensors"
    content, card = exports.read(file)
    exports.write(file, content, {k: v for k, v in card.items() if k != "seed_index"})
    with pytest.raises(InputError, match=r"an export \(KeyError: 'seed_index'\)"):
        load_network(file)
    exports.write(file, content[:1000], card)
    with pytest.raises(InputError, match=r"as an export \(SafetensorError"):
        load_network(file)
    file.write_bytes(content[:999])
    with pytest.raises(InputError, match="its SHA-256 is not that of its card"):
        load_network(file)
