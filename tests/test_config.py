"""Every field's default is good, every other kind of value is refused with reason."""

import dataclasses
import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import pytest
from ml_collections import ConfigDict

from cnnjax import config
from cnnjax import models as networks
from cnnjax.config import schema
from cnnjax.errors import InputError
from cnnjax.run import abstract_state, recipe_of
from cnnjax.workdir.identity import lasting, make_identity

CONFIGS = sorted((Path(__file__).parents[1] / "experiments" / "configs").glob("*.py"))
# Of the pictures that the chapter feeds each network with.
IMAGE_SHAPES = {"CifarCNN": (32, 32, 3)}
MNIST_SHAPE = (28, 28, 1)
# By arithmetic from the layers, in the tests of the networks.
NUM_PARAMS = {"base": 1_068_298, "mnist": 3_274_634, "mlp": 238_510}

MODELS = sorted(schema.MODEL_FIELDS)
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
        ("optim.name", "lion", "one of adam, adamw"),
        ("optim.learning_rate", 0.0, "more than 0 at step 0"),
        ("optim.learning_rate", float("nan"), "more than 0 at step 0"),
        ("optim.l2", -0.1, "at least 0 weight"),
        ("optim.l2", float("inf"), "at least 0 weight"),
        ("data.distortions", (["crop"],), "some of .*crop, flip"),
        ("optim.weight_decay", -0.1, "at least 0 weight decay, of adamw"),
        ("optim.weight_decay", float("nan"), "at least 0 weight decay, of adamw"),
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
    chosen = changed("CifarCNN", "train.steps_per_call", 10)
    config.validate(chosen)
    with pytest.raises(InputError, match=r"set --config\.data\.pipeline=device"):
        config.for_platform(chosen, "cpu")
    chosen.data.pipeline = "device"
    assert config.for_platform(chosen, "cpu").train.steps_per_call == 10


@pytest.mark.parametrize(
    ("platform", "pipeline", "steps", "expected"),
    [
        ("cpu", "auto", 0, ("tfdata", 1)),
        ("cpu", "device", 0, ("device", 1)),
        ("gpu", "auto", 0, ("device", 200)),
        ("gpu", "auto", 7, ("device", 7)),
        ("gpu", "tfdata", 0, ("tfdata", 1)),
        ("gpu", "device", 1, ("device", 1)),
    ],
)
def test_what_is_left_open_is_what_pays_on_the_platform(
    platform: str, pipeline: str, steps: int, expected: tuple[str, int]
) -> None:
    chosen = config.default_config("CifarCNN")
    assert (chosen.data.pipeline, chosen.train.steps_per_call) == ("auto", 0)
    chosen.data.pipeline, chosen.train.steps_per_call = pipeline, steps
    found = config.for_platform(chosen.copy_and_resolve_references().lock(), platform)
    assert (found.data.pipeline, found.train.steps_per_call) == expected
    assert chosen.data.pipeline == pipeline, "a copy was changed"
    assert lasting(found) == lasting(chosen), "it is the same run"


def test_many_seeds_need_the_data_on_the_device_and_jit() -> None:
    chosen = changed("MLP", "num_seeds", 4)
    for platform in ("cpu", "gpu"):
        assert config.for_platform(chosen, platform).data.pipeline == "device"
    chosen.data.pipeline = "tfdata"
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
    state = abstract_state(recipe_of(described, num_classes=10), shape)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    assert size == NUM_PARAMS.get(path.stem, size)
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
        ("optim", 3, "has no field optim;"),
        ("epochs", 3, "has no field epochs"),
        ("model", {"name": "ResNet"}, "got model.name='ResNet'"),
        ("model", {"name": [["CifarCNN"]]}, "got model.name="),
        ("seed", {"value": 0}, "no field seed.value|lacks the field seed"),
        ("seed", {"value": {"value": 0}}, "lacks the field seed;"),
        ("train", {"steps.x": 3, "steps": 3}, "no field|lacks the field"),
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


def test_a_run_of_a_newer_version_says_which_fields_are_unknown() -> None:
    stored = config.default_config("MLP").to_dict()
    stored["train"]["warm_start"] = stored["data"]["mixup"] = 0.1
    with pytest.raises(InputError) as caught:
        config.from_stored(stored)
    assert str(caught.value) == (
        "a stored configuration of MLP has no field data.mixup, train.warm_start; a"
        " newer version may have written it, so read it with that version"
    )


def test_a_network_is_one_of_models() -> None:
    need = "got model.name='Mlp', need one of CifarCNN, SimpleCNN, MLP, LeNet5, the"
    with pytest.raises(InputError, match=need):
        config.default_config("Mlp")


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


# The fields of version 0.1.0 (commit 136a9d0), which runs that are out there have.
SECTIONS_OF_0_1_0 = {
    "": "compile_cache deterministic num_seeds seed",
    "data.": "crop dir distortions download file name normalise on_missing pipeline"
    " source train_examples val_examples workers",
    "eval.": "batch_size top_k views",
    "model.": "dtype",
    "optim.": "decay_rate decay_steps ema_decay label_smoothing learning_rate momentum"
    " name schedule staircase warmup_steps",
    "parallel.": "coordinator distributed mode num_devices num_processes process_id",
    "train.": "batch_size checkpoint_every eval_every log_every report steps"
    " steps_per_call tensorboard",
}
OF_0_1_0 = {
    f"{section}{leaf}"
    for section, leaves in SECTIONS_OF_0_1_0.items()
    for leaf in leaves.split()
}
OF_MODEL_IN_0_1_0 = {
    "CifarCNN": {
        *("model.activation", "model.lrn", "model.lrn_alpha", "model.lrn_beta"),
        *("model.lrn_bias", "model.lrn_depth_radius", "model.pool", "model.width"),
        *("optim.l1", "optim.l2"),
    },
    "SimpleCNN": {"model.bias", "model.keep_prob"},
    "MLP": {"model.keep_prob"},
    "LeNet5": {"model.variant"},
}
# Which its checkpoints bear, of the defaults with distortions=("crop", "flip").
SHA_IN_0_1_0 = {
    "CifarCNN": "f26fa87d82e4e65875302b55a630ec795d9539ddb6556bbab49f136f8a40b77d",
    "SimpleCNN": "cba14f6b2fd2378f83ee63615ad1df6581964ee56473cfc7b440f24fd5af19bb",
    "MLP": "f3d8d70626c0ff270c72dfbc6d2f7ad9046b321fab64d7bf1771095c01040891",
    "LeNet5": "2b4c80f0c8ecc9ad733f513f716cdd82809d27fff9bc6a2e57a90a628743e7f1",
}


@pytest.mark.parametrize("model", MODELS)
def test_every_field_since_the_first_version_is_marked_new(model: str) -> None:
    """Or the runs of that version could neither be read nor resumed."""
    old = {"model.name"} | OF_0_1_0 | OF_MODEL_IN_0_1_0.get(model, set())
    found = config.fields(model).items()
    assert {name for name, field in found if not field.is_new} == old


@pytest.mark.parametrize("model", SHA_IN_0_1_0)
def test_runs_of_the_first_version_keep_their_identity(model: str) -> None:
    stored = config.default_config(model)
    stored.data.distortions = ("crop", "flip")
    for name in config.fields(model).keys() - {"model.name"}:
        if name not in OF_0_1_0 | OF_MODEL_IN_0_1_0[model]:
            section, leaf = name.split(".")
            del stored[section][leaf]
    values = json.loads(json.dumps(stored.to_dict()))
    expected = {"config": SHA_IN_0_1_0[model], "data": "abc", "seed": 0}
    assert make_identity(values, "abc") == expected
    read = config.from_stored(values)
    assert make_identity(read.to_dict(), "abc") == expected
    assert read.data.distortions == ("crop", "flip")


MAY_CHANGE = {name for name in config.FIELDS if name.startswith("parallel.")} | {
    *("train.steps", "train.steps_per_call", "train.log_every", "train.eval_every"),
    *("train.checkpoint_every", "data.pipeline", "data.workers", "compile_cache"),
    *("train.report", "train.tensorboard", "data.mirror", "data.cache"),
}


@pytest.mark.parametrize("name", sorted({*config.fields("CifarCNN")} - {"model.name"}))
def test_the_identity_is_of_every_field_but_those_that_may_change(name: str) -> None:
    before = make_identity(config.default_config("CifarCNN").to_dict(), "abc")
    after = make_identity(changed("CifarCNN", name, "other").to_dict(), "abc")
    assert (before == after) == (name in MAY_CHANGE)


def test_the_identity_does_not_depend_on_the_order_of_fields() -> None:
    values = config.default_config("CifarCNN").to_dict()
    turned = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(values.items())
    }
    assert list(turned) != list(values) and list(turned["data"]) != list(values["data"])
    assert make_identity(turned, "abc") == make_identity(values, "abc")


@pytest.mark.parametrize(("default", "other"), [(3, 4), (("a",), ("b",)), ("", "c")])
def test_a_field_that_an_older_version_lacked(
    monkeypatch: pytest.MonkeyPatch, default: Any, other: Any
) -> None:
    old = json.loads(json.dumps(config.default_config("CifarCNN").to_dict()))
    identity = make_identity(old, "abc")
    field = schema.Field(default, "a value", lambda value: True, is_new=True)
    monkeypatch.setitem(config.FIELDS, "optim.added", field)
    read = config.from_stored(old)
    assert read.optim.added == default
    assert type(read.optim.added) is type(default)
    assert read.to_dict() == config.default_config("CifarCNN").to_dict()
    assert make_identity(old, "abc") == identity
    # At its default wherever it is read from, and not at any other value.
    stored = json.loads(json.dumps(read.to_dict()))
    for values in (read.to_dict(), stored):
        assert make_identity(values, "abc") == identity
        assert "optim.added" not in lasting(values)
    read.optim.added = other
    assert make_identity(read.to_dict(), "abc")["config"] != identity["config"]
    found = lasting(read.to_dict())
    assert found["optim.added"] == json.loads(json.dumps(other))


def test_a_field_of_the_first_version_is_not_filled_in() -> None:
    stored = config.default_config("CifarCNN").to_dict()
    del stored["optim"]["momentum"]
    with pytest.raises(InputError, match=r"lacks the field optim\.momentum;"):
        config.from_stored(stored)


class Stock(nn.Module):
    """As in Flax's examples; only what a configuration can hold becomes a field."""

    num_classes: int = 10
    width: int = 8
    rate: float = 0.5
    windows: tuple[int, ...] = (3, 3)
    residual: bool = False
    kind: str = "plain"
    act: Any = nn.relu
    stages: Any = None


def test_the_fields_of_a_network_are_those_of_its_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(networks.MODELS, "Stock", Stock)
    made = config.default_config("Stock")
    made.model.windows = ((3, 1), (2, (5, 5)))
    as_json = json.loads(json.dumps(made.to_dict()))
    assert config.from_stored(as_json).model.windows == ((3, 1), (2, (5, 5)))
    assert config.flatten(made) == config.flatten(as_json)
    made = config.default_config("Stock")
    config.validate(made)
    expected = {"width": 8, "rate": 0.5, "windows": (3, 3), "residual": False}
    expected |= {"kind": "plain", "name": "Stock", "dtype": "float32"}
    assert made.model.to_dict() == expected
    assert (made.optim.l1, made.optim.l2) == (0.0, 0.0)
    own = config.fields("Stock").keys() - config.FIELDS.keys() - {"model.name"}
    assert all(config.fields("Stock")[name].is_new for name in own)
    made.model.windows = (5,)
    stored = json.loads(json.dumps(made.to_dict()))
    assert config.from_stored(stored).to_dict() == made.to_dict()
    del stored["model"]["rate"]  # which its class did not have then
    assert config.from_stored(stored).to_dict() == made.to_dict()
    with pytest.raises(InputError, match=r"model\.width=2\.0, need a value like 8;"):
        config.validate(changed("Stock", "model.width", 2.0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shift,rotate", ("shift", "rotate")),
        (" shift, rotate ", ("shift", "rotate")),
        ("shift rotate", ("shift", "rotate")),
        ("shift", ("shift",)),
        ("[shift, rotate]", ("shift", "rotate")),
        ("(shift,)", ("shift",)),
        ("'shift', rotate", ("shift", "rotate")),
        ("('shift', 'rotate')", ("shift", "rotate")),
        ('["shift"]', ("shift",)),
        ("", ()),
        ("''", ()),
        ("()", ()),
        ("[]", ()),
        ("3,3", (3, 3)),
        ("(0.5, 1)", (0.5, 1)),
        ("5", (5,)),
    ],
)
def test_a_tuple_is_written_plainly_or_as_in_python(text: str, expected) -> None:
    assert config.parse_tuple(text) == expected
