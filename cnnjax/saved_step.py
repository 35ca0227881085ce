"""What one step of a run holds on disk, and whether what is read is what was written.

Orbax does not notice a flipped bit. So every step carries the SHA-256 of each of its
arrays, and of what is said about them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cnnjax import mismatch
from cnnjax.digests import describe, digest, seal

# What is said about a step takes some kB; larger is damaged, and not read.
MAX_META_BYTES = 16 * 2**20


def contents(
    state: Any,
    *,
    run: Mapping[str, Any],
    best: Mapping[str, Any] | None,
    about: Mapping[str, Any],
) -> ocp.args.Composite:
    """Returns what Orbax is to write: the arrays, and `meta` with their digests.

    Args:
        state: a tree of arrays.
        run: what the run is known by, see `identity.of_run`.
        best: step and score of the best step so far, itself included; None for none.
        about: whatever is to be known of it, as JSON.
    """
    meta = {
        "leaves": describe(state),
        "digest": digest(state),
        "run": run,
        "best": best,
        "about": about,
    }
    return ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        meta=ocp.args.JsonSave(meta | {"seal": seal(meta)}),
    )


def read_meta(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns what is said about a step: leaves, digest, run, best and about.

    Raises:
        ValueError: it is too large, or does not match its SHA-256.
        Exception: whatever Orbax raises of what it cannot read.
    """
    path = Path(manager.directory) / str(step) / "meta" / "metadata"
    if path.exists() and path.stat().st_size > MAX_META_BYTES:
        raise ValueError(f"{path} is larger than {MAX_META_BYTES} bytes")
    read = ocp.args.Composite(meta=ocp.args.JsonRestore())
    meta: dict[str, Any] = manager.restore(step, args=read).meta
    if meta.pop("seal") != seal(meta):
        raise ValueError("what is said about it does not match its SHA-256")
    if meta["best"] is not None:
        best = meta["best"]
        meta["best"] = {"step": int(best["step"]), "score": float(best["score"])}
    return meta


def read(
    manager: ocp.CheckpointManager, step: int, like: Any, run: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Returns the arrays of a step and what is said about it.

    Args:
        manager: of the folder that it lies in.
        step: number of updates done.
        like: a tree of arrays whose structure, shapes, dtypes and shardings those that
            are read are to have.
        run: what the run is known by.

    Raises:
        InputError: it is of another network or another run.
        ValueError: it does not match its SHA-256.
        Exception: whatever Orbax raises of what it cannot read.
    """
    meta = read_meta(manager, step)
    where = f"{manager.directory}/{step}"
    mismatch.check_same_network(where, meta["leaves"], describe(like))
    mismatch.check_same_run(where, meta["run"], run)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    state = manager.restore(step, args=wanted).state
    found = digest(state)
    wrong = [name for name in found if found[name] != meta["digest"].get(name)]
    if wrong:
        raise ValueError(f"{wrong[0]} does not match its SHA-256")
    return state, meta
