"""What a run is known by: its checkpoints carry it and are refused to other runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax import digests, runs


def of_run(config: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Returns the SHA-256 of the configuration, the data's fingerprint and the seed.

    The hash leaves out whatever may change on resume, and `train.steps`, which may
    where the schedule allows it.

    Args:
        config: resolved, nested.
        fingerprint: of the data set that is trained on.
    """
    fixed = {
        name: value
        for name, value in runs.flatten(config).items()
        if name not in runs.MAY_CHANGE and not name.startswith(runs.CHANGES_BYTES)
    }
    return {
        "config": digests.seal(fixed),
        "data": fingerprint,
        "seed": config["seed"],
    }


def of_workdir(workdir: Path) -> dict[str, Any]:
    """Returns the same of the run in a folder.

    Raises:
        InputError: `workdir` is not one of a run.
    """
    config = runs.read_json(workdir / runs.CONFIG)
    return of_run(config, runs.trained_on(workdir)["fingerprint"])
