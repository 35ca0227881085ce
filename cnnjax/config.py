"""A configuration: made, checked, and read back from a run. Imports no JAX either."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cnnjax.errors import InputError
from cnnjax.fields import FIELDS, MODEL_FIELDS, fields


def default_config(model: str) -> ConfigDict:
    """Returns a configuration with every field of `model` at its default."""
    config = ConfigDict()
    for name, field in fields(model).items():
        *sections, leaf = name.split(".")
        section = config
        for part in sections:
            if part not in section:
                section[part] = ConfigDict()
            section = section[part]
        section[leaf] = field.default
    return config


def from_stored(values: Mapping[str, Any]) -> ConfigDict:
    """Returns the configuration that a run has stored as JSON.

    Args:
        values: nested, as `config.to_dict()` was; JSON has no tuples.

    Raises:
        InputError: it is not a valid configuration.
    """
    config = _with_tuples(values)
    validate(config)
    return config


def _with_tuples(values: Mapping[str, Any]) -> ConfigDict:
    config = ConfigDict()
    for name, value in values.items():
        if "." in name:
            raise InputError(f"a stored configuration has no field {name!r}: it nests")
        if isinstance(value, Mapping):
            value = _with_tuples(value)
        config[name] = tuple(value) if isinstance(value, list) else value
    return config


def validate(config: ConfigDict) -> None:
    """Raises InputError for the first field that is missing, unknown or out of range.

    What depends on the data or the devices is checked where they are known.
    """
    flat = _flatten(config)
    if flat.get("model.name") not in list(MODEL_FIELDS):
        raise InputError(
            f"got model.name={flat.get('model.name')!r}, need one of"
            f" {', '.join(MODEL_FIELDS)}"
        )
    known = fields(flat["model.name"])
    for name in sorted(flat.keys() ^ known.keys()):
        problem = "has no field" if name in flat else "lacks the field"
        raise InputError(
            f"a configuration of {flat['model.name']} {problem} {name}; the fields are"
            f" {', '.join(sorted(known))}"
        )
    for name, field in known.items():
        value = flat[name]
        if type(value) is not type(field.default) or not field.is_good(value):
            raise InputError(
                f"got {name}={value!r}, need {field.need};"
                f" set it with --config.{name}=..."
            )
    if flat["train.steps_per_call"] > 1 and flat["data.pipeline"] != "device":
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
        if num_seeds > 1 and flat[name] != value:
            raise InputError(
                f"got num_seeds={num_seeds} with {name}={flat[name]}, need {value} for"
                f" more than one seed; set --config.{name}={value}"
            )


def _flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
