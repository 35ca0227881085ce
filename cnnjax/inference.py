"""A run that was trained before: its configuration, its data's classes, its weights."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax import identity, runs
from cnnjax.checkpoints import Checkpoints
from cnnjax.errors import InputError
from cnnjax.state import TrainState, init_state
from cnnjax.updates import Recipe


def stored_config(workdir: Path) -> dict[str, Any]:
    """Returns the nested configuration of a run; it is data, and never executed.

    Raises:
        InputError: `workdir` is not one of a run.
    """
    return runs.read_json(workdir / runs.CONFIG)


def restore(workdir: Path, like: TrainState, which: str = "latest") -> TrainState:
    """Returns the newest good state of a run, and leaves the run as it is.

    Args:
        workdir: of the run.
        like: a state of the same network and optimiser, from `init_state`.
        which: "latest", or "best": the highest accuracy on the validation split.

    Raises:
        InputError: the run has no such checkpoint, or is of another network, or its
            checkpoints are of another run.
        RunError: no such checkpoint is good.
    """
    directory = workdir / runs.CHECKPOINTS
    restored = None
    if directory.is_dir():
        run = identity.of_workdir(workdir)
        with Checkpoints(directory, run=run, read_only=True) as checkpoints:
            best = which == "best"
            read = checkpoints.restore_best if best else checkpoints.restore_latest
            restored = read(like)
    if restored is None:
        what = "checkpoint"
        if which == "best":
            what = "best checkpoint, which takes data.val_examples"
        raise InputError(
            f"{workdir} has no {what}: need a run that has saved one; let it train"
        )
    return restored[0]


def abstract_state(
    recipe: Recipe, *, num_seeds: int, image_shape: tuple[int, int, int]
) -> TrainState:
    """Returns what `restore` needs to know of a state; nothing is computed.

    Args:
        recipe: of the run.
        num_seeds: of the run; with more than one every leaf leads with it.
        image_shape: (height, width, channels) of what the network is fed.

    Returns:
        A state of shapes and dtypes, all of it on the first device.
    """
    make_state = partial(
        init_state,
        recipe.model,
        recipe.tx,
        seed=0,
        image_shape=image_shape,
        ema=recipe.ema_decay > 0,
    )
    lead = () if num_seeds == 1 else (num_seeds,)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state: TrainState = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (*lead, *leaf.shape), leaf.dtype, sharding=place
        ),
        jax.eval_shape(make_state),
    )
    return state


def replica(state: TrainState, k: int) -> TrainState:
    """Returns the k-th network of a run of many seeds, as a run of its seed has it.

    Args:
        state: from `restore`, with a `like` from `replicas.start_state`.
        k: from 0, which is all there is in a run of one seed.

    Raises:
        InputError: the run has fewer.

    Returns:
        The state without the leading [num_seeds], on the host.
    """
    num_seeds = state.step.size
    if not 0 <= k < num_seeds:
        raise InputError(
            f"got replica {k}, need 0 to {num_seeds - 1}: the run is of {num_seeds}"
            " seeds; name one of them"
        )
    state = jax.device_get(state)
    return state if np.ndim(state.step) == 0 else jax.tree.map(lambda x: x[k], state)


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
