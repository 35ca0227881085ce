"""What is exported runs with jax alone, and gives what the network gives."""

import dataclasses
import hashlib
import json
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from cnnjax import exporting
from cnnjax.data import augment
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError
from cnnjax.models import MODELS
from cnnjax.models.forward import init_variables
from cnnjax.network import Network
from cnnjax.workdir import exports

CROPPED = Preprocessing(24, ("crop", "flip"), "per_image")
PLAIN = Preprocessing(0, (), "unit")
CASES = {
    "CifarCNN": ({}, CROPPED, (32, 32, 3)),
    "SimpleCNN": ({}, PLAIN, (28, 28, 1)),
    "MLP": ({}, PLAIN, (28, 28, 1)),
    "LeNet5": ({}, PLAIN, (28, 28, 1)),
    "LeNet5-modern": ({"variant": "modern"}, PLAIN, (28, 28, 1)),
    "Stock": ({}, CROPPED, (32, 32, 3)),
}
CARD = {"classes": [str(i) for i in range(10)], "dataset": {"name": "noise"}}

# jax needs flatbuffers to read an export, and what pip brings with jax.
ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
try:
    import cnnjax
except ImportError:
    import numpy as np
    from jax import export
    with open("network", "rb") as file:
        network = export.deserialize(bytearray(file.read()))
    images = np.load("images.npy")
    np.savez("found.npz", *[network.call(images[:n]) for n in {sizes}])
"""
SIZES = (1, 3, 128)


class Stock(nn.Module):
    """With statistics of its own, as Flax's examples have them."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3))(x)))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.num_classes)(x)


def network_of(case) -> Network:
    options, preprocessing, image_shape = CASES[case]
    name = case.split("-")[0]
    model = Stock(10) if name == "Stock" else MODELS[name](num_classes=10, **options)
    shape = preprocessing.output_shape(image_shape)
    make = jax.jit(init_variables, static_argnums=(0, 2))
    # As drawn, the outputs of some are all but equal, whatever is put in.
    variables = jax.tree.map(lambda x: x * 2, make(model, jax.random.key(0), shape))
    return Network(
        model=model,
        variables=variables,
        num_seeds=1,
        seed_index=-1,
        weights="params",
        step=0,
        preprocessing=preprocessing,
        image_shape=image_shape,
        class_names=tuple(CARD["classes"]),
        dataset="noise",
    )


def assert_plain(exported):
    """Holds that nothing is of the CPU: neither its kernels nor loops over chunks."""
    assert exported.platforms == ("cpu", "cuda")
    text = exported.mlir_module()
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion"}
    assert "stablehlo.while" not in text


@pytest.mark.parametrize("case", [case for case in CASES if case != "CifarCNN"])
def test_every_network_is_exported_for_any_batch(case):
    network = network_of(case)
    image_shape = network.image_shape
    exported = exporting.to_stablehlo(network.probabilities, image_shape)
    assert_plain(exported)
    sides = ",".join(map(str, image_shape))
    assert str(exported.in_avals[0]) == f"uint8[batch,{sides}]"
    images = np.random.default_rng(0).integers(0, 256, (3, *image_shape), np.uint8)
    found, expected = exported.call(images), network.predict(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The CIFAR network's export, some pictures, and their probabilities."""
    folder = tmp_path_factory.mktemp("export")
    network = network_of("CifarCNN")
    exported = exporting.to_stablehlo(network.probabilities, network.image_shape)
    assert_plain(exported)
    exports.write(folder / "network", bytes(exported.serialize()), CARD)
    shape = (128, *network.image_shape)
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    np.save(folder / "images.npy", images)
    expected = [np.asarray(jax.jit(network.probabilities)(images[:n])) for n in SIZES]
    return folder, expected


def test_it_runs_with_jax_alone(written):
    folder, expected = written
    blocked = {"cnnjax", "flax", "optax", "orbax", "tensorflow", "ml_collections"}
    program = ALONE.format(blocked=blocked, sizes=SIZES)
    command = [sys.executable, "-I", "-W", "error", "-c", program]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(folder / "found.npz") as found:
        assert len(found) == len(SIZES)
        for array, probabilities in zip(found.values(), expected, strict=True):
            assert probabilities.std(0).max() > 1e-3 or len(probabilities) == 1
            np.testing.assert_allclose(array, probabilities, atol=1e-5)


def copied(written, folder, content=None, **card):
    """Writes a copy of the export in `folder`, changed."""
    whole = (written[0] / "network").read_bytes()
    content = whole if content is None else content
    digest = hashlib.sha256(content).hexdigest()
    (folder / "network").write_bytes(content)
    text = json.dumps(CARD | {"sha256": digest} | card)
    (folder / "network.json").write_text(text)
    return folder / "network"


def test_what_was_written_comes_back(written, tmp_path):
    exported, card = exporting.load(copied(written, tmp_path))
    assert card["classes"] == CARD["classes"]
    assert exported.in_avals[0].shape[1:] == (32, 32, 3)


def test_what_is_no_export_is_refused(written, tmp_path):
    whole = (written[0] / "network").read_bytes()
    for garbage in (b"", b"words", whole[:1000], bytes(1000), whole[100:]):
        with pytest.raises(InputError, match=r"network cannot be read as an export"):
            exporting.load(copied(written, tmp_path, garbage))
    with pytest.raises(InputError, match="SHA-256 is not that of its card"):
        exporting.load(copied(written, tmp_path, sha256="0"))
    with pytest.raises(InputError, match=r"float32\[batch, 9\]|float32 \[batch, 9\]"):
        exporting.load(copied(written, tmp_path, classes=CARD["classes"][:9]))
    with pytest.raises(InputError, match=r"network\.json .* no card of an export"):
        exporting.load(copied(written, tmp_path, dataset={}))
    (tmp_path / "network.json").write_text("[]")
    with pytest.raises(InputError, match=r"network\.json .* no card of an export"):
        exporting.load(tmp_path / "network")
    (tmp_path / "network.json").unlink()
    with pytest.raises(InputError, match=r"network\.json cannot be read \(No such"):
        exporting.load(tmp_path / "network")


def test_a_parameter_of_no_axes_keeps_its_shape():
    network = network_of("MLP")
    slope = {"params": {"PReLU_0": {"negative_slope": np.float32(0.01)}}}
    network = dataclasses.replace(network, variables=slope)
    flat = safetensors.numpy.load(exporting.to_safetensors(network))
    assert flat["params.PReLU_0.negative_slope"].shape == ()


def test_another_number_of_channels_is_refused(tmp_path):
    def probabilities(images):
        return jnp.zeros((images.shape[0], 10))

    exported = exporting.to_stablehlo(probabilities, (32, 32, 4))
    exports.write(tmp_path / "four", bytes(exported.serialize()), CARD)
    with pytest.raises(InputError, match=r"four maps uint8\[batch,32,32,4\] .* 1 or 3"):
        exporting.load(tmp_path / "four")


def torch_network(torch):
    """CifarCNN as a reader of the export's description writes it in PyTorch."""

    class Cifar(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 64, 5, padding=2)
            self.conv2 = torch.nn.Conv2d(64, 64, 5, padding=2)
            self.local3 = torch.nn.Linear(6 * 6 * 64, 384)
            self.local4 = torch.nn.Linear(384, 192)
            self.logits = torch.nn.Linear(192, 10)
            self.norm = torch.nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)
            self.pool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)

        def forward(self, x):
            x = self.norm(self.pool(torch.relu(self.conv1(x))))
            x = self.pool(self.norm(torch.relu(self.conv2(x))))
            x = torch.relu(self.local3(x.permute(0, 2, 3, 1).flatten(1)))
            return self.logits(torch.relu(self.local4(x)))

    return Cifar()


@pytest.mark.slow
def test_pytorch_computes_the_same_from_the_weights():
    torch = pytest.importorskip("torch")
    network = network_of("CifarCNN")
    flat = safetensors.numpy.load(exporting.to_safetensors(network))
    weights = {}
    for name, value in flat.items():
        _, layer, leaf = name.split(".")
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
        kind = {"kernel": "weight", "bias": "bias"}[leaf]
        weights[f"{layer}.{kind}"] = torch.tensor(value.transpose(axes).copy())
    other = torch_network(torch)
    other.load_state_dict(weights)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    view = np.asarray(augment.standard_view(jnp.asarray(images), CROPPED))
    with torch.no_grad():
        found = other(torch.tensor(view.transpose(0, 3, 1, 2).copy())).numpy()
    expected = network.logits(jnp.asarray(images))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
