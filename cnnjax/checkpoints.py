"""Orbax saves and restores; a digest says whether what came back is what went in.

Orbax writes a step under another name and renames it when it is whole, but does not
notice a flipped bit. So every step carries the SHA-256 of each of its arrays and of
what is said about them, and a step that cannot be read or does not match is moved aside
for the one before it.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cnnjax import orbax_noise, processes
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
        orbax_noise.keep_quiet()
        self._directory = directory.resolve()
        self._read_only = read_only
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(KEEP_LATEST),
                cleanup_tmp_directories=not self._read_only,
                create=not self._read_only,
                read_only=self._read_only,
                # Or it reads metrics, which this project does not save, from whatever
                # is in the folder, and fails on the first that are no JSON.
                lightweight_initialize=True,
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
        with self._disk_errors():
            self._manager.close()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax raises whatever its writers raise.
            raise RunError(
                f"a checkpoint could not be written to {self._directory}"
                f" ({_one_line(error)}); the earlier ones are kept: see to the disk and"
                " run the same again"
            ) from error

    def steps(self) -> list[int]:
        """Returns the steps that are saved or being saved, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, about: dict[str, Any]) -> None:
        """Saves the state after `step` updates, unless it is there already.

        Args:
            step: number of updates done.
            state: a tree of arrays; may be donated as soon as this returns.
            about: whatever is to be known of it, as JSON.

        Raises:
            RunError: this save or the one before it could not be written, or the folder
                holds newer steps.
        """
        if step in self.steps():
            return
        meta = {"leaves": describe(state), "digest": digest(state), "about": about}
        with self._disk_errors():
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    meta=ocp.args.JsonSave(meta | {"seal": _seal(meta)}),
                ),
            )
        if not saved:
            raise RunError(
                f"checkpoint {step} was not saved: {self._directory} holds newer steps"
                f" ({self.steps()}); move them away or use another --workdir"
            )

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Returns the newest good state and what was said about it; None if empty.

        A step that cannot be read or does not match its digest is passed over with a
        warning, and renamed to `<step>.corrupt` (unless `read_only`) once one before it
        has proved good. If none has, all stay, so that the next start fails as well.

        Args:
            like: a tree of arrays whose structure, shapes, dtypes and shardings the
                restored one is to have.

        Raises:
            InputError: the checkpoint is of another network.
            RunError: there are checkpoints, and none is good.
        """
        reasons: dict[int, str] = {}
        for step in reversed(self.steps()):
            reason = ""
            try:
                restored = self._restore(step, like)
            except InputError:
                raise
            except Exception as error:  # Orbax raises whatever its readers raise.
                reason = _one_line(error)
            # What one process cannot read, none goes on from.
            reason = max(processes.gather(reason))
            if reason:
                reasons[step] = f"{step}: {reason}"
                print(f"warning: checkpoint {reasons[step]}", file=sys.stderr)
                continue
            if reasons and not self._read_only:
                self._move_aside(reasons)
            return restored
        if reasons:
            raise RunError(
                f"no checkpoint in {self._directory} is good"
                f" ({'; '.join(reasons.values())}); restore them from a backup or use"
                " another --workdir"
            )
        return None

    def _move_aside(self, steps: Iterable[int]) -> None:
        with self._disk_errors():
            self._manager.close()
            for step in steps if processes.is_first() else ():
                damaged = self._directory / str(step)
                damaged.rename(_unused(damaged.with_name(f"{step}.corrupt")))
            processes.gather("moved")
            self._manager = self._open()

    def _restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        read = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = self._manager.restore(step, args=read).meta
        if meta.pop("seal") != _seal(meta):
            raise ValueError("what is said about it does not match its SHA-256")
        _check_same_network(f"{self._directory}/{step}", meta["leaves"], describe(like))
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        read = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        state = self._manager.restore(step, args=read).state
        found = digest(state)
        wrong = [name for name in found if found[name] != meta["digest"].get(name)]
        if wrong:
            raise ValueError(f"{wrong[0]} does not match its SHA-256")
        return state, meta["about"]


def _seal(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _unused(path: Path) -> Path:
    """Returns `path`, or with -2, -3, ... behind it where there is one already."""
    others = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(p for p in itertools.chain([path], others) if not p.exists())


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


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
