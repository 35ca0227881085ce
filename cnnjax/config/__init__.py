"""A run's configuration: made, read and checked; `schema` lists its fields.

It imports neither JAX nor TensorFlow, so that `--help` is quick.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cnnjax.config.schema import FIELDS, check_model, fields
from cnnjax.errors import InputError

# Steps of a call that a GPU makes by default: about 50 ms where it is fast, so that the
# start of a call costs little; few enough for a slow one to stop within seconds.
GPU_STEPS_PER_CALL = 200


def default_config(model: str = "CifarCNN") -> ConfigDict:
    """Returns a configuration of a network in `MODELS`, every field at its default.

    Raises:
        InputError: there is no such network.

    Example:
        >>> config = cj.default_config("LeNet5")
        >>> config.train.steps = 20
        >>> config.model.variant
        '1998'
    """
    check_model({"model.name": model})
    known = fields(model)
    return _nested({name: field.default for name, field in known.items()})


def parse_tuple(text: str) -> tuple[Any, ...]:
    """Returns the tuple that a text stands for.

    It is written as Python writes tuples and lists, ('crop', 'flip'), or plainly: with
    or without brackets, with commas or spaces between, and no quotes; crop,flip.
    """
    try:
        value = ast.literal_eval(text.strip() or "()")
    except (ValueError, SyntaxError):
        plain = text.strip().removeprefix("(").removesuffix(")")
        plain = plain.removeprefix("[").removesuffix("]")
        parts = re.split(r"[\s,]+", plain)
        return tuple(part.strip("'\"") for part in parts if part.strip("'\""))
    if isinstance(value, list | tuple):
        return sequences_as(tuple, value)
    return () if value == "" else (value,)


def sequences_as(kind: type, value: Any) -> Any:
    """Returns a value with each list and tuple, within others too, made a `kind`."""
    if not isinstance(value, list | tuple):
        return value
    return kind(sequences_as(kind, item) for item in value)


def from_stored(values: Mapping[str, Any]) -> ConfigDict:
    """Returns the configuration that a run has stored as nested JSON.

    Fields that an older version did not have get their defaults; JSON's lists become
    tuples again.

    Raises:
        InputError: it is not a valid configuration.
    """
    for name in values:
        if "." in name:
            raise InputError(f"a stored configuration has no field {name!r}: it nests")
    flat = filled(values)
    _check_names(flat, is_stored=True)  # unknown names might not nest
    config = _nested({name: sequences_as(tuple, v) for name, v in flat.items()})
    validate(config)
    return config


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored nested configuration, flat and as JSON, with new fields added.

    Raises:
        InputError: there is no such network.
    """
    flat = flatten(values)
    check_model(flat)
    known = fields(flat["model.name"]).items()
    return flatten({n: field.default for n, field in known if field.is_new}) | flat


def flatten(values: Any) -> dict[str, Any]:
    """Returns {"a.b": value} of nested mappings, with tuples as lists, as in JSON."""
    return {name: sequences_as(list, v) for name, v in _flatten(values).items()}


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _nested(flat: Mapping[str, Any]) -> ConfigDict:
    sections = dict.fromkeys(name.partition(".")[0] for name in flat if "." in name)
    config = ConfigDict({name: {} for name in sections})
    for name, value in flat.items():
        section, _, leaf = name.rpartition(".")
        (config[section] if section else config)[leaf] = value
    return config


def _check_names(flat: Mapping[str, Any], *, is_stored: bool = False) -> None:
    known = fields(flat["model.name"])
    differing = sorted(flat.keys() ^ known.keys())
    if not differing:
        return
    problem = f"lacks the field {differing[0]}"
    advice = f"the fields are {', '.join(sorted(known))}"
    advice += f", all of them in cnnjax.default_config({flat['model.name']!r})"
    if differing[0] in flat:
        problem = f"has no field {differing[0]}"
        if is_stored:
            unknown = (name for name in differing if name in flat)
            problem = f"has no field {', '.join(unknown)}"
            advice = "a newer version may have written it, so read it with that version"
    what = "a stored configuration" if is_stored else "a configuration"
    raise InputError(f"{what} of {flat['model.name']} {problem}; {advice}")


def validate(config: ConfigDict) -> None:
    """Raises InputError for the first field that is missing, unknown or out of range.

    Limits that depend on the data or the devices are checked when those are known.
    """
    flat = _flatten(config)
    check_model(flat)
    _check_names(flat)
    for name, field in fields(flat["model.name"]).items():
        value = flat[name]
        if type(value) is not type(field.default) or not field.is_good(value):
            raise InputError(
                f"got {name}={value!r}, need {field.need};"
                f" set it with --config.{name}=..."
            )
    if flat["train.steps_per_call"] > 1 and flat["data.pipeline"] == "tfdata":
        raise InputError(
            f"got train.steps_per_call={flat['train.steps_per_call']} with"
            f" data.pipeline={flat['data.pipeline']}, which makes one batch at a time;"
            " set --config.data.pipeline=device"
        )
    if flat["optim.schedule"] == "exponential" and not flat["optim.decay_rate"]:
        raise InputError(
            "got optim.decay_rate=0 with optim.schedule=exponential, need more than 0:"
            " set it to 1 for a constant rate, or take optim.schedule=linear"
        )
    _check_processes(flat)
    _check_seeds(flat)
    last_position = flat["train.steps"] * flat["train.batch_size"]
    if last_position > 2**32:
        raise InputError(
            f"got {last_position} examples in all, need at most 2**32, as positions are"
            " uint32; ask for fewer train.steps or a smaller train.batch_size"
        )


def for_platform(config: ConfigDict, platform: str) -> ConfigDict:
    """Returns a copy in which "auto" and 0 are what pays on a platform, such as "cpu".

    A GPU is done with a step of these networks before the host has sent a batch or
    started a program: so the data lie in its memory, and many steps are one call.
    Several seeds need the data there on any platform.

    Raises:
        InputError: what has been chosen does not fit the rest of the configuration.
    """
    config, on_gpu = config.copy_and_resolve_references(), platform == "gpu"
    if config.data.pipeline == "auto":
        on_device = on_gpu or config.num_seeds > 1
        config.data.pipeline = "device" if on_device else "tfdata"
    if not config.train.steps_per_call:
        many = on_gpu and config.data.pipeline == "device"
        config.train.steps_per_call = GPU_STEPS_PER_CALL if many else 1
    validate(config)
    return config


def _check_processes(flat: Mapping[str, Any]) -> None:
    told = {
        name: flat[f"parallel.{name}"] != FIELDS[f"parallel.{name}"].default
        for name in ("coordinator", "num_processes", "process_id")
    }
    if any(told.values()) and not flat["parallel.distributed"]:
        name = next(name for name in told if told[name])
        raise InputError(
            f"got parallel.{name} without parallel.distributed, need both or neither;"
            " set --config.parallel.distributed"
        )
    if any(told.values()) and not all(told.values()):
        raise InputError(
            "got only some of parallel.coordinator, num_processes and process_id, need"
            " all three, or none of them where the cluster tells them"
        )
    if any(told.values()) and (
        flat["parallel.process_id"] >= flat["parallel.num_processes"]
    ):
        raise InputError(
            f"got parallel.process_id={flat['parallel.process_id']} of"
            f" {flat['parallel.num_processes']} processes, need 0 to"
            f" {flat['parallel.num_processes'] - 1}"
        )
    if flat["parallel.distributed"] and flat["train.report"]:
        raise InputError(
            "got train.report=True with parallel.distributed, need False: the others"
            " would wait for the process that writes it; use report.py afterwards"
        )
    if flat["parallel.distributed"] and flat["parallel.mode"] == "pmap":
        raise InputError(
            "got parallel.mode=pmap with parallel.distributed, need jit, which alone"
            " spans processes; set --config.parallel.mode=jit"
        )


def _check_seeds(flat: Mapping[str, Any]) -> None:
    seed, num_seeds = flat["seed"], flat["num_seeds"]
    if seed + num_seeds > 2**32:
        raise InputError(
            f"got seed={seed} and num_seeds={num_seeds}, need seeds below 2**32; set a"
            " smaller --config.seed"
        )
    needed = {
        "data.pipeline": "device",
        "parallel.mode": "jit",
        "parallel.distributed": False,
    }
    for name, value in needed.items():
        if num_seeds > 1 and flat[name] not in (value, "auto"):
            raise InputError(
                f"got num_seeds={num_seeds} with {name}={flat[name]}, need {value} for"
                f" more than one seed; set --config.{name}={value}"
            )
