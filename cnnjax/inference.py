"""A run that was trained before: its configuration, its data's classes, its weights."""

from pathlib import Path
from typing import Any

from cnnjax import runs
from cnnjax.checkpoints import Checkpoints
from cnnjax.errors import InputError
from cnnjax.state import TrainState


def stored_config(workdir: Path) -> dict[str, Any]:
    """Returns the nested configuration of a run; it is data, and never executed.

    Raises:
        InputError: `workdir` is not one of a run.
    """
    return runs.read_json(workdir / runs.CONFIG)


def restore(workdir: Path, like: TrainState) -> TrainState:
    """Returns the newest good state of a run, and leaves the run as it is.

    Args:
        workdir: of the run.
        like: a state of the same network and optimiser, from `init_state`.

    Raises:
        InputError: the run has no checkpoint yet, or is of another network.
        RunError: no checkpoint is good.
    """
    directory = workdir / runs.CHECKPOINTS
    restored = None
    if directory.is_dir():
        with Checkpoints(directory, read_only=True) as checkpoints:
            restored = checkpoints.restore_latest(like)
    if restored is None:
        raise InputError(
            f"{workdir} has no checkpoint: need a run that has saved one; let it train"
        )
    return restored[0]


def check_same_classes(workdir: Path, class_names: tuple[str, ...], name: str) -> None:
    """Raises InputError where a run was trained on other classes than these.

    Args:
        workdir: of the run.
        class_names: of the data set at hand, in the order of its labels.
        name: of that data set.
    """
    trained = runs.trained_on(workdir)
    if list(class_names) != trained["classes"]:
        raise InputError(
            f"got {name} with the classes {', '.join(class_names)}, need those of"
            f" {trained['name']}, which {workdir} was trained on:"
            f" {', '.join(trained['classes'])}; name such a data set"
        )
