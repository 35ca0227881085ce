"""Every field's default is good, every other kind of value is refused with reason."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from cnnjax import assembly, config
from cnnjax.errors import InputError
from cnnjax.state import init_state, num_params

CONFIGS = sorted((Path(__file__).parents[1] / "experiments" / "configs").glob("*.py"))
# Of the pictures that the chapter feeds each network with.
IMAGE_SHAPES = {"CifarCNN": (32, 32, 3)}
MNIST_SHAPE = (28, 28, 1)
# By arithmetic from the layers, in the tests of the networks.
NUM_PARAMS = {"base": 1_068_298, "mnist": 3_274_634, "mlp": 238_510}

MODELS = sorted(config.MODEL_FIELDS)
ALL_FIELDS = sorted((model, name) for model in MODELS for name in config.fields(model))


def load(path: Path) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def changed(model: str, name: str, value: Any) -> ConfigDict:
    values = config.default_config(model).to_dict()
    *sections, leaf = name.split(".")
    section = values
    for part in sections:
        section = section[part]
    section[leaf] = value
    # Set in place, an integer would become the float that was there before.
    return ConfigDict(values, convert_dict=True)


@pytest.mark.parametrize("model", MODELS)
def test_defaults_are_good(model: str) -> None:
    default = config.default_config(model)
    config.validate(default)
    assert default.model.name == model


@pytest.mark.parametrize(("model", "name"), ALL_FIELDS)
def test_another_type_is_refused(model: str, name: str) -> None:
    default = config.fields(model)[name].default
    others = [None, "1", 1, 1.0, True, (), ["crop"], b"x"]
    for value in others:
        if type(value) is type(default):
            continue
        match = "got model.name" if name == "model.name" else f"got {name}=.*, need"
        with pytest.raises(InputError, match=match):
            config.validate(changed(model, name, value))


@pytest.mark.parametrize(
    ("name", "value", "need"),
    [
        ("seed", -1, r"an integer in \[0, 2\*\*32\)"),
        ("seed", 2**32, r"an integer in \[0, 2\*\*32\)"),
        ("num_seeds", 0, "at least 1 replicas"),
        ("data.source", "web", "one of tfds, npz, folder, embedded"),
        ("data.on_missing", "", "one of embedded, error"),
        ("data.pipeline", "grain", "one of tfdata"),
        ("data.workers", 0, "1 to 256 threads"),
        ("data.workers", 257, "1 to 256 threads"),
        ("data.val_examples", -1, "at least 0 training pictures"),
        ("data.crop", -24, "at least 0 pixels"),
        ("data.distortions", ("crop", "blur"), "some of .*crop, flip"),
        ("data.distortions", ("crop", "crop"), "some of .*crop, flip"),
        ("data.normalise", "zca", "one of per_image, unit"),
        ("model.dtype", "float16", "one of float32, bfloat16"),
        ("model.pool", 0, "at least 1 pixels"),
        ("model.width", 0.0, "more than 0"),
        ("model.width", float("inf"), "more than 0"),
        ("model.activation", "gelu", "one of relu"),
        ("model.lrn_depth_radius", -1, "at least 0 channels"),
        ("model.lrn_bias", 0.0, "more than 0"),
        ("optim.name", "adamw", "one of adam"),
        ("optim.learning_rate", 0.0, "more than 0 at step 0"),
        ("optim.learning_rate", float("nan"), "more than 0 at step 0"),
        ("optim.l2", -0.1, "at least 0 weight"),
        ("optim.l2", float("inf"), "at least 0 weight"),
        ("data.distortions", (["crop"],), "some of .*crop, flip"),
        ("optim.momentum", 1.0, r"momentum in \[0, 1\)"),
        ("optim.schedule", "step", "one of .*exponential"),
        ("optim.decay_rate", 1.5, r"a factor in \[0, 1\]"),
        ("optim.ema_decay", 1.0, r"decay \(0 keeps no average\) in \[0, 1\)"),
        ("train.steps", 0, "at least 1 steps"),
        ("train.batch_size", 0, "at least 1 pictures"),
        ("train.log_every", 0, "at least 1 steps"),
        ("train.checkpoint_every", -1, "at least 0 steps"),
        ("eval.top_k", 0, "at least 1 classes"),
        ("parallel.mode", "xmap", "one of jit, pmap"),
        ("parallel.num_devices", -1, "at least 0 devices"),
    ],
)
def test_out_of_range_is_refused(name: str, value: Any, need: str) -> None:
    match = rf"got {name}=.*, need {need}.*; set it with --config.{name}="
    with pytest.raises(InputError, match=match):
        config.validate(changed("CifarCNN", name, value))


def test_positions_must_fit_their_type() -> None:
    longest = changed("CifarCNN", "train.steps", 2**32 // 128)
    config.validate(longest)
    longest.train.steps += 1
    with pytest.raises(InputError, match=r"need at most 2\*\*32"):
        config.validate(longest)


def test_many_steps_a_call_need_the_data_on_the_device() -> None:
    chosen = config.default_config("CifarCNN")
    chosen.train.steps_per_call = 10
    with pytest.raises(InputError, match=r"set --config\.data\.pipeline=device"):
        config.validate(chosen)
    chosen.data.pipeline = "device"
    config.validate(chosen)


def test_many_seeds_need_the_data_on_the_device_and_jit() -> None:
    chosen = changed("MLP", "num_seeds", 4)
    with pytest.raises(
        InputError, match=r"num_seeds=4 with data\.pipeline=tfdata, need"
    ):
        config.validate(chosen)
    chosen.data.pipeline = "device"
    config.validate(chosen)
    chosen.parallel.mode = "pmap"
    with pytest.raises(InputError, match=r"num_seeds=4 with parallel\.mode=pmap, need"):
        config.validate(chosen)


def test_every_seed_must_fit_its_type() -> None:
    chosen = changed("MLP", "seed", 2**32 - 4)
    chosen.data.pipeline, chosen.num_seeds = "device", 4
    config.validate(chosen)
    chosen.num_seeds = 5
    with pytest.raises(InputError, match=r"seed=4294967292 and num_seeds=5, need"):
        config.validate(chosen)


@pytest.mark.parametrize("model", MODELS)
def test_unknown_and_missing_fields(model: str) -> None:
    more = config.default_config(model)
    more.train.epochs = 3
    with pytest.raises(InputError, match=f"of {model} has no field train.epochs; the"):
        config.validate(more)
    fewer = config.default_config(model)
    del fewer.train.batch_size
    with pytest.raises(InputError, match=f"{model} lacks the field train.batch_size;"):
        config.validate(fewer)
    none = config.default_config(model)
    del none.model
    with pytest.raises(InputError, match=r"got model\.name=None, need one of"):
        config.validate(none)


def test_fields_are_of_one_network_only() -> None:
    other = config.default_config("SimpleCNN")
    other.model.lrn = True
    with pytest.raises(InputError, match=r"SimpleCNN has no field model\.lrn;"):
        config.validate(other)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations(path: Path) -> None:
    """Each is good, survives being stored, and builds its network and optimiser."""
    described = load(path)
    config.validate(described)
    stored = config.from_stored(json.loads(json.dumps(described.to_dict())))
    assert stored.to_dict() == described.to_dict()
    assert type(stored.data.distortions) is tuple
    shape = IMAGE_SHAPES.get(described.model.name, MNIST_SHAPE)
    preprocessing = assembly.make_preprocessing(described)
    recipe = assembly.make_recipe(described, num_classes=10)
    state = jax.eval_shape(
        lambda: init_state(
            recipe.model,
            recipe.tx,
            seed=described.seed,
            image_shape=preprocessing.output_shape(shape),
            ema=recipe.ema_decay > 0,
        )
    )
    assert num_params(state.params) == NUM_PARAMS.get(
        path.stem, num_params(state.params)
    )
    assert (state.ema_params is None) == (described.optim.ema_decay == 0)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_stored_comes_back(model: str) -> None:
    full = config.default_config(model)
    full.data.distortions = ("flip", "crop")
    full.seed = 2**32 - 1
    stored = config.from_stored(json.loads(json.dumps(full.to_dict())))
    assert stored.to_dict() == full.to_dict()


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("seed", "0", "got seed='0'"),
        ("seed", None, "got seed=None"),
        ("seed", 0.0, "got seed=0.0"),
        ("data", 3, "no field data;|lacks the field data"),
        ("epochs", 3, "has no field epochs"),
        ("model", {"name": "ResNet"}, "got model.name='ResNet'"),
        ("model", {"name": [["CifarCNN"]]}, "got model.name="),
        ("seed", {"value": 0}, "no field seed.value|lacks the field seed"),
        ("train.steps", 3000, "has no field 'train.steps': it nests"),
        ("", 0, "has no field"),
    ],
)
def test_a_stored_configuration_is_not_trusted(
    name: str, value: Any, match: str
) -> None:
    stored = config.default_config("CifarCNN").to_dict() | {name: value}
    with pytest.raises(InputError, match=match):
        config.from_stored(stored)


def test_a_field_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.FIELDS["seed"].default = 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"process_id": 0}, "got parallel.process_id without parallel.distributed"),
        ({"distributed": True, "process_id": 0}, "got only some of parallel.coord"),
        ({"distributed": True, "mode": "pmap"}, "parallel.mode=pmap with parallel.dis"),
        (
            {
                "distributed": True,
                "coordinator": "host:1",
                "num_processes": 2,
                "process_id": 2,
            },
            "parallel.process_id=2 of 2 processes, need 0 to 1",
        ),
        ({"distributed": True, "coordinator": "host"}, "need HOST:PORT"),
    ],
)
def test_processes_are_told_wholly_or_not_at_all(given: dict, message: str) -> None:
    made = config.default_config("CifarCNN")
    made.parallel.update(given)
    with pytest.raises(InputError, match=re.escape(message)):
        config.validate(made)
