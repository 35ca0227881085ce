"""Every field of a configuration, with its default, unit and range."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cnnjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a configuration.

    Attributes:
        default: the value where a config does not set it; its type is the field's.
        need: describes the good values, for error messages.
        is_good: returns whether a value is good.
        is_new: True for every field that version 0.1.0 lacked, so also for those added
            from now on. Its default must mean what runs of that version did, and a
            run's identity omits it at its default, so that those runs can be resumed.
    """

    default: Any
    need: str
    is_good: Callable[[Any], bool]
    is_new: bool = False


def _one_of(default: str, *choices: str) -> Field:
    return Field(default, f"one of {', '.join(choices)}", lambda v: v in choices)


def _some_of(default: tuple[str, ...], *choices: str) -> Field:
    return Field(
        default,
        f"some of {', '.join(choices)}, each once, with commas between",
        lambda v: all(part in choices for part in v) and len(set(v)) == len(v),
    )


def _at_least(default: float, low: float, unit: str) -> Field:
    return Field(default, f"at least {low} {unit}", lambda v: low <= v < float("inf"))


def _steps(need: str) -> Field:
    return Field(0, need, lambda v: 0 <= v < 2**31)


def _positive(default: float, unit: str) -> Field:
    return Field(default, f"more than 0 {unit}", lambda v: 0 < v < float("inf"))


def _fraction(default: float, what: str) -> Field:
    return Field(default, f"{what} in [0, 1)", lambda v: 0 <= v < 1)


def _keep(default: float) -> Field:
    return Field(default, "a probability in (0, 1]", lambda v: 0 < v <= 1)


def _is_address(text: str) -> bool:
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    return False


def _flag(default: bool) -> Field:
    return Field(default, "True or False", lambda v: True)


def _text(default: str, need: str) -> Field:
    return Field(default, need, lambda v: True)


FIELDS = {
    "seed": Field(0, "an integer in [0, 2**32)", lambda v: 0 <= v < 2**32),
    "num_seeds": _at_least(1, 1, "replicas, of the seeds from `seed` on"),
    # Makes XLA's operations deterministic on a GPU; on a CPU they always are.
    "deterministic": _flag(False),
    # Compiled programs are kept in the user's cache folder for the next start.
    "compile_cache": _flag(True),
    "data.source": _one_of("tfds", "tfds", "npz", "folder", "embedded"),
    "data.name": _text("", "the data set's name; '' for the script's own"),
    "data.dir": _text("", "a folder of data; '' for TFDS's own"),
    "data.file": _text("", "an .npz file, for data.source=npz"),
    "data.download": _flag(True),
    "data.mirror": Field(
        "",
        "http(s)://..., a folder with the set's archives; '' for none",
        lambda v: v == "" or _is_address(v),
        is_new=True,
    ),
    # Decoded pictures are kept in the user's cache folder for the next start.
    "data.cache": dataclasses.replace(_flag(True), is_new=True),
    "data.on_missing": _one_of("embedded", "embedded", "error"),
    "data.num_classes": dataclasses.replace(
        _at_least(0, 0, "classes; 0 for as many as the data have"), is_new=True
    ),
    # "auto" is "device" on a GPU or of several seeds; else "tfdata".
    "data.pipeline": _one_of("auto", "tfdata", "device", "auto"),
    "data.workers": Field(16, "1 to 256 threads", lambda v: 1 <= v <= 256),
    "data.val_examples": _at_least(
        0, 0, "training pictures held out; 0 for the set's own validation split"
    ),
    "data.train_examples": _at_least(0, 0, "pictures to train on; 0 for all"),
    "data.crop": _at_least(0, 0, "pixels; 0 for the whole picture"),
    "data.distortions": _some_of(
        (),
        *("shift", "rotate", "scale"),
        *("crop", "flip", "brightness", "contrast", "cutout"),
    ),
    "data.normalise": _one_of("per_image", "per_image", "unit"),
    "model.dtype": _one_of("float32", "float32", "bfloat16"),
    "optim.name": _one_of(
        "adam", "adam", "adamw", "sgd", "momentum", "adagrad", "muon", "muon_conv"
    ),
    "optim.learning_rate": _positive(1e-3, "at step 0"),
    "optim.momentum": _fraction(0.9, "momentum"),
    "optim.weight_decay": dataclasses.replace(
        _at_least(0.01, 0, "weight decay, of adamw only"), is_new=True
    ),
    "optim.schedule": _one_of(
        "exponential", "constant", "exponential", "linear", "cosine"
    ),
    "optim.decay_steps": _steps("steps below 2**31; 0 for train.steps"),
    "optim.decay_rate": Field(
        1.0, "a factor in [0, 1] each decay_steps", lambda v: 0 <= v <= 1
    ),
    "optim.staircase": _flag(False),
    "optim.warmup_steps": _steps("steps below 2**31"),
    "optim.ema_decay": _fraction(0.0, "decay (0 keeps no average)"),
    "optim.label_smoothing": _fraction(0.0, "smoothing"),
    "train.steps": _at_least(3000, 1, "steps"),
    "train.batch_size": _at_least(128, 1, "pictures"),
    "train.steps_per_call": _at_least(
        0, 0, "steps; 0 for as many as pay; above 1 for data.pipeline=device"
    ),
    "train.log_every": _at_least(10, 1, "steps"),
    "train.eval_every": _at_least(0, 0, "steps; 0 for the end only"),
    "train.checkpoint_every": _at_least(1000, 0, "steps; 0 for the end only"),
    "train.report": _flag(False),
    "train.tensorboard": _flag(True),  # only if tensorboardX is installed
    "eval.batch_size": _at_least(500, 1, "pictures"),
    "eval.top_k": _at_least(1, 1, "classes"),
    "eval.views": Field(
        1, "1, 5 (crops) or 10 (and their mirror images)", lambda v: v in (1, 5, 10)
    ),
    "parallel.mode": _one_of("jit", "jit", "pmap"),
    "parallel.num_devices": _at_least(0, 0, "devices; 0 for as many as pay"),
    # Seeds of one device are batched by jax.vmap, rather than looped over.
    "parallel.vmap_seeds": dataclasses.replace(_flag(False), is_new=True),
    "parallel.distributed": _flag(False),
    "parallel.coordinator": Field(
        "",
        "HOST:PORT on which process 0 listens; '' where the cluster tells",
        lambda v: v == "" or bool(re.fullmatch(r"\S+:\d+", v)),
    ),
    "parallel.num_processes": _at_least(0, 0, "processes; 0 where the cluster tells"),
    "parallel.process_id": _at_least(-1, -1, "(-1 where the cluster tells)"),
}

MODEL_FIELDS = {
    "CifarCNN": {
        "optim.l1": _at_least(0.0, 0, "weight of sum(abs(w))"),
        "optim.l2": _at_least(0.004, 0, "weight of sum(w**2) / 2"),
        "model.lrn": _flag(True),
        "model.lrn_depth_radius": _at_least(4, 0, "channels"),
        "model.lrn_bias": _positive(1.0, "added to the energy"),
        "model.lrn_alpha": _at_least(0.001 / 9, 0, "weight of the energy"),
        "model.lrn_beta": _at_least(0.75, 0, "exponent"),
        "model.pool": _at_least(3, 1, "pixels, the side of a window"),
        "model.width": _positive(1.0, "times the chapter's channels"),
        "model.activation": _one_of("relu", "relu", "sigmoid", "tanh"),
    },
    "SimpleCNN": {
        "model.keep_prob": _keep(0.5),
        "model.bias": _at_least(0.1, 0, "where biases start"),
    },
    "MLP": {"model.keep_prob": _keep(0.75)},
    "LeNet5": {"model.variant": _one_of("1998", "1998", "modern")},
}


def fields(model: str) -> dict[str, Field]:
    """Returns the fields that a configuration of `model` has, by dotted name.

    Raises:
        KeyError: there is no such network.
    """
    own = MODEL_FIELDS[model] if model in MODEL_FIELDS else _fields_of_module(model)
    return {"model.name": _text(model, "a network of cnnjax.models")} | FIELDS | own


def _fields_of_module(model: str) -> dict[str, Field]:
    """Returns the fields of a network without an entry here, from its class."""
    # Imported only for such a network, because this imports JAX.
    from cnnjax.models import MODELS

    network = MODELS[model]
    if not (isinstance(network, type) and dataclasses.is_dataclass(network)):
        raise InputError(
            f"got {network!r} as MODELS[{model!r}], need the class of a"
            " flax.linen.Module, not an instance or a function; put the class there"
        )
    found = {
        f"optim.{name}": Field(0.0, f"at least 0 weight of {what}", lambda v: v >= 0)
        for name, what in (("l1", "sum(abs(w))"), ("l2", "sum(w**2) / 2"))
    }
    for field in dataclasses.fields(network):
        if isinstance(field.default, bool | int | float | str | tuple):
            need = f"a value like {field.default!r}"
            found[f"model.{field.name}"] = Field(field.default, need, lambda v: True)
    for name in ("name", "parent", "dtype", "num_classes"):
        found.pop(f"model.{name}", None)
    return {k: dataclasses.replace(v, is_new=True) for k, v in found.items()}


def check_model(flat: Mapping[str, Any]) -> None:
    """Raises InputError if the `model.name` of a flat configuration is no network."""
    name = flat.get("model.name")
    if isinstance(name, str) and name in MODEL_FIELDS:
        return
    from cnnjax.models import MODELS

    if not isinstance(name, str) or name not in MODELS:
        raise InputError(
            f"got model.name={name!r}, need one of {', '.join(MODELS)}, the names in"
            " cnnjax/models/__init__.py"
        )
