"""Orbax saves and restores; a digest says whether what came back is what went in.

Orbax writes a step under another name and renames it when it is whole, but does not
notice a flipped bit. So every step carries the SHA-256 of each of its arrays, and a
step that cannot be read or does not match is moved aside for the one before it.
"""

import hashlib
import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cnnjax.errors import InputError, RunError

KEEP_LATEST = 2


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


class Checkpoints:
    """The checkpoints of one run, `<directory>/<step>/`; a context manager.

    The newest two are kept. Saving is asynchronous: an error of a save is raised by the
    next save or when the block ends.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        """Opens the folder, making it if need be.

        Args:
            directory: of the run's checkpoints.
            read_only: neither make, clean nor change anything; for another's run.
        """
        # It reports every save in several lines and every restore as a warning.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._directory = directory.resolve()
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(KEEP_LATEST),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Returns the steps that can be restored, in order."""
        return sorted(self._manager.all_steps(read=True))

    def save(self, step: int, state: Any, about: dict[str, Any]) -> None:
        """Saves the state after `step` updates, unless it is there already.

        Args:
            step: number of updates done.
            state: a tree of arrays; may be donated as soon as this returns.
            about: whatever is to be known of it, as JSON.
        """
        if step in self.steps():
            return
        meta = {"leaves": describe(state), "digest": digest(state), "about": about}
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
        )
        if not saved:
            raise RunError(
                f"checkpoint {step} was not saved: {self._directory} holds newer steps"
                f" ({self.steps()}); move them away or use another --workdir"
            )

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Returns the newest good state and what was said about it; None if empty.

        A step that cannot be read or whose arrays do not match their digest is renamed
        to `<step>.corrupt` (unless `read_only`), with a warning, and the one before it
        is used.

        Args:
            like: a tree of arrays whose structure, shapes, dtypes and shardings the
                restored one is to have.

        Raises:
            InputError: the checkpoint is of another network.
            RunError: there are checkpoints, and none is good.
        """
        reasons = []
        for step in reversed(self.steps()):
            try:
                return self._restore(step, like)
            except InputError:
                raise
            except Exception as error:  # Orbax raises whatever its readers raise.
                reason = " ".join(str(error).split())[:300]
                reasons.append(f"{step}: {type(error).__name__}: {reason}")
                print(f"warning: checkpoint {reasons[-1]}", file=sys.stderr, flush=True)
                if not self._read_only:
                    self._move_aside(step)
        if reasons:
            raise RunError(
                f"no checkpoint in {self._directory} is good ({'; '.join(reasons)});"
                " restore them from a backup or use another --workdir"
            )
        return None

    def _move_aside(self, step: int) -> None:
        damaged = self._directory / str(step)
        damaged.rename(damaged.with_name(f"{step}.corrupt"))
        self._manager.reload()

    def _restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        read = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = self._manager.restore(step, args=read).meta
        _check_same_network(f"{self._directory}/{step}", meta["leaves"], describe(like))
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        read = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        state = self._manager.restore(step, args=read).state
        found = digest(state)
        wrong = [name for name in found if found[name] != meta["digest"].get(name)]
        if wrong:
            raise ValueError(f"{wrong[0]} does not match its SHA-256")
        return state, meta["about"]


def _check_same_network(
    where: str, stored: dict[str, Any], needed: dict[str, Any]
) -> None:
    for name in sorted(stored.keys() | needed.keys()):
        got, need = stored.get(name), needed.get(name)
        if got != need:
            raise InputError(
                f"{where} is a checkpoint of another network: got {name}"
                f" {_spell(got)}, need {_spell(need)}; use the run's own configuration"
            )


def _spell(leaf: dict[str, Any] | None) -> str:
    return "absent" if leaf is None else f"{leaf['dtype']} {leaf['shape']}"
