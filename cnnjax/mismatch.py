"""Checkpoints of another network or another run are refused, with what differs."""

from collections.abc import Mapping
from typing import Any

from cnnjax.errors import InputError

# What a run is known by, in the words of the message.
PARTS = {
    "config": "SHA-256 of the configuration",
    "data": "fingerprint of the data",
    "seed": "seed",
}


def check_same_network(
    where: str, stored: Mapping[str, Any], needed: Mapping[str, Any]
) -> None:
    """Raises InputError for the first array that differs.

    Args:
        where: the checkpoint, for the message.
        stored: path -> dtype and shape, see `digests.describe`.
        needed: the same of the network at hand.
    """
    for name in sorted(stored.keys() | needed.keys()):
        got, need = stored.get(name), needed.get(name)
        if got != need:
            raise InputError(
                f"{where} is a checkpoint of another network: got {name}"
                f" {_spell(got)}, need {_spell(need)}; use the run's own configuration"
            )


def check_same_run(
    where: str, stored: Mapping[str, Any], needed: Mapping[str, Any]
) -> None:
    """Raises InputError where a checkpoint is of another run, naming what differs.

    Args:
        where: the checkpoint, for the message.
        stored: `config`, `data` and `seed`, see `identity.of_run`.
        needed: the same of the run at hand.
    """
    differences = [
        f"{words} {stored.get(part)}, need {needed[part]}"
        for part, words in PARTS.items()
        if stored.get(part) != needed[part]
    ]
    if differences:
        raise InputError(
            f"{where} is a checkpoint of another run: got {'; '.join(differences)};"
            " give the folder its own checkpoints back or use another --workdir"
        )


def _spell(leaf: Mapping[str, Any] | None) -> str:
    return "absent" if leaf is None else f"{leaf['dtype']} {leaf['shape']}"
