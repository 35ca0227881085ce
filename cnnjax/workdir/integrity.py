"""Checks that a checkpoint was written by this run and has not changed since.

Orbax does not notice a flipped bit. So every checkpoint stores the SHA-256 of each of
its arrays, and of its metadata.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from cnnjax.errors import InputError
from cnnjax.workdir.identity import seal

# Metadata take a few kB; a larger file is damaged and is not read.
MAX_META_BYTES = 16 * 2**20


def contents(
    state: Any,
    *,
    run: Mapping[str, Any],
    best: Mapping[str, Any] | None,
    about: Mapping[str, Any],
) -> ocp.args.Composite:
    """Returns what Orbax writes: the arrays, and metadata with their digests.

    `run` is the run's identity, see `identity.make_identity`; `best` is `Best.record`,
    this step included; `about` are further facts about the state, as JSON.
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
    """Returns the metadata of a step: leaves, digest, run, best and about.

    Raises:
        ValueError: they are too large, or do not match their SHA-256.
        Exception: any type, from Orbax, when it cannot read them.
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
    """Returns the arrays and the metadata of a step.

    `like` is a tree of arrays with the structure, shapes, dtypes and shardings of the
    result; `run` is the run's identity.

    Raises:
        InputError: the step is of another network or another run.
        ValueError: it does not match its SHA-256.
        Exception: any type, from Orbax, when it cannot read the step.
    """
    meta = read_meta(manager, step)
    where = f"{manager.directory}/{step}"
    check_same_network(where, meta["leaves"], describe(like))
    check_same_run(where, meta["run"], run)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    state = manager.restore(step, args=wanted).state
    found = digest(state)
    wrong = [name for name in found if found[name] != meta["digest"].get(name)]
    if wrong:
        raise ValueError(f"{wrong[0]} does not match its SHA-256")
    return state, meta


def describe(state: Any) -> dict[str, dict[str, Any]]:
    """Returns path -> dtype and shape of every array of a tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path): {
            "dtype": str(leaf.dtype),
            "shape": list(leaf.shape),
        }
        for path, leaf in leaves
    }


def digest(state: Any) -> dict[str, str]:
    """Returns path -> SHA-256 over path, dtype, shape and bytes of every array."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    digests = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        array = np.ascontiguousarray(jax.device_get(leaf))
        header = f"{name} {array.dtype} {array.shape} ".encode()
        digests[name] = hashlib.sha256(header + array.tobytes()).hexdigest()
    return digests


def not_finite(state: Any) -> list[str]:
    """Returns the paths of the arrays that contain NaN or infinity."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return [
        jax.tree_util.keystr(path)
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        and not np.isfinite(jax.device_get(leaf)).all()
    ]


# The parts of a run's identity, as error messages name them.
PARTS = {
    "config": "SHA-256 of the configuration",
    "data": "fingerprint of the data",
    "seed": "seed",
}


def check_same_network(
    where: str, stored: Mapping[str, Any], needed: Mapping[str, Any]
) -> None:
    """Raises InputError for the first array that differs between two `describe`s.

    `stored` is the checkpoint's, `needed` the network's; `where` names the checkpoint.
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
    """Raises InputError, naming the differences, if two identities differ.

    `stored` is the checkpoint's, `needed` the run's; `where` names the checkpoint.
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
