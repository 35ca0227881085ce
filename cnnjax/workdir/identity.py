"""What makes a run the same run: its identity, and what may change on resuming.

A stored configuration of any version has the same identity, so that a newer version
goes on with the runs of an older one.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cnnjax.config import flatten
from cnnjax.config.schema import check_model, fields

# Fields that may change when a run is resumed; `train.steps` only if the schedule does
# not depend on it. `parallel.*` may change too, but then the bytes differ.
MAY_CHANGE = (
    "compile_cache",
    "train.steps",
    "train.steps_per_call",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.report",
    "train.tensorboard",
    "data.mirror",
    "data.cache",
    "data.pipeline",
    "data.workers",
)
# Fields that say where the data lie and how they are taken. They may change as well, as
# the fingerprint decides whether the data are the run's; its identity keeps the values
# with which it began.
PLACES = (
    "data.dir",
    "data.file",
    "data.download",
    "data.on_missing",
    "data.num_classes",
)
CHANGES_BYTES = "parallel."


def as_any_version(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a nested or flat configuration, flat and as JSON.

    New fields at their defaults are left out, so that every version returns the same
    for a configuration that any version has stored.
    """
    flat = flatten(values)
    check_model(flat)
    known = fields(flat["model.name"]).items()
    defaults = flatten({n: field.default for n, field in known if field.is_new})
    return {
        name: value
        for name, value in flat.items()
        if not (name in defaults and value == defaults[name])
    }


def lasting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that decide what a run learns, as `as_any_version` does.

    Left out are `MAY_CHANGE` and `parallel.*`.
    """
    return {
        name: value
        for name, value in as_any_version(values).items()
        if name not in MAY_CHANGE and not name.startswith(CHANGES_BYTES)
    }


def seal(value: Any) -> str:
    """Returns the SHA-256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_identity(
    values: Mapping[str, Any],
    fingerprint: str,
    began: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns a run's identity, which every checkpoint stores.

    It is `config`, the SHA-256 of `lasting(values)`; `data`, the fingerprint of the
    training data set; and `seed`. `began` are the `PLACES` with which the run began, by
    dotted name, where they have changed since.
    """
    return {
        "config": seal(lasting(flatten(values) | dict(began or {}))),
        "data": fingerprint,
        "seed": values["seed"],
    }
