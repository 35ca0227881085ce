"""Which steps of a run are kept, and which of them it goes on from.

Orbax writes a step under another name and renames it when it is whole. One that cannot
be read, or is not what was written, is moved aside for the one before it.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp

from cnnjax.errors import InputError, RunError, one_line
from cnnjax.runtime import processes
from cnnjax.workdir import files, integrity
from cnnjax.workdir.integrity import not_finite


class Checkpoints:
    """The checkpoints of one run, `<directory>/<step>/`; a context manager.

    The newest two are kept, and the one of the highest score. Each step says which that
    is, so that it is known whatever becomes of the others. Saving is asynchronous: an
    error of a save is raised by `check`, by the next save or when the block ends.
    """

    def __init__(
        self, directory: Path, *, run: Mapping[str, Any], read_only: bool = False
    ) -> None:
        """Opens the folder, making it if need be.

        Args:
            directory: of the run's checkpoints.
            run: what the run is known by, see `identity.of_run`.
            read_only: neither make, clean nor change anything; for another's run.
        """
        self._directory = directory.resolve()
        self._run = dict(run)
        self._read_only = read_only
        self.best = Best()
        self._manager = self._open()
        self._inode = None if read_only else _inode(self._directory)

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self.best,
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
                f" ({_reason(error)}); the earlier ones are kept: see to the disk and"
                " run the same again"
            ) from error

    def steps(self) -> list[int]:
        """Returns the steps that are saved or being saved, in order."""
        return sorted(self._manager.all_steps())

    def check(self) -> None:
        """Raises RunError if a save has failed since, or the folder is gone.

        It waits for nothing, and is quick enough to be called at every step.
        """
        with self._disk_errors():
            self._check_folder()
            if not self._manager.is_saving_in_progress():
                self._manager.wait_until_finished()

    def _check_folder(self) -> None:
        # A save under way as the folder was moved has made another of that name.
        if _inode(self._directory) != self._inode:
            raise FileNotFoundError("the folder was moved while this ran")

    def save(
        self,
        step: int,
        state: Any,
        about: dict[str, Any],
        *,
        score: float | None = None,
    ) -> None:
        """Saves the state after `step` updates, unless it is there already.

        Args:
            step: number of updates done.
            state: a tree of arrays; may be donated as soon as this returns.
            about: whatever is to be known of it, as JSON.
            score: higher is better; None where it was not evaluated.

        Raises:
            RunError: the state is not finite; this save or the one before it could not
                be written; or the folder holds newer steps.
        """
        if step in self.steps():
            return
        poisoned = not_finite(state)
        if poisoned:
            raise RunError(
                f"{poisoned[0]} is not finite after {step} steps, which are not saved;"
                " the last good checkpoint is kept: lower optim.learning_rate, or look"
                " at the data"
            )
        self.check()
        self.best.offer(step, score)
        contents = integrity.contents(
            state, run=self._run, best=self.best.record, about=about
        )
        with self._disk_errors():
            saved = self._manager.save(step, args=contents)
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
            InputError: the checkpoint is of another network or another run.
            RunError: there are checkpoints, and none is good.
        """
        reasons: dict[int, str] = {}
        for step in reversed(self.steps()):
            reason = ""
            try:
                state, meta = integrity.read(self._manager, step, like, self._run)
            except InputError:
                raise
            except Exception as error:  # Orbax raises whatever its readers raise.
                reason = _reason(error)
            # What one process cannot read, none goes on from.
            reason = max(processes.gather(reason))
            if reason:
                reasons[step] = f"{step}: {reason}"
                print(f"warning: checkpoint {reasons[step]}", file=sys.stderr)
                continue
            if reasons and not self._read_only:
                self._move_aside(reasons)
            self.best.record = meta["best"]
            if self.best.record and self.best.record["step"] not in self.steps():
                self.best.record = None
            return state, meta["about"]
        if reasons:
            raise RunError(
                f"no checkpoint in {self._directory} is good"
                f" ({'; '.join(reasons.values())}); restore them from a backup or use"
                " another --workdir"
            )
        return None

    def restore_best(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Returns the best state and what was said about it; None if there is none.

        Args:
            like: as for `restore_latest`.

        Raises:
            InputError: the checkpoint is of another network or another run.
            RunError: it is damaged, or so are all that say which it is.
        """
        reasons = []
        for step in reversed(self.steps()):
            try:
                best = integrity.read_meta(self._manager, step)["best"]
                if best is None:
                    return None
                state, meta = integrity.read(
                    self._manager, best["step"], like, self._run
                )
                return state, meta["about"]
            except InputError:
                raise
            except Exception as error:  # Orbax raises whatever its readers raise.
                reasons.append(f"{step}: {_reason(error)}")
        if not reasons:
            return None
        raise RunError(
            f"the best checkpoint in {self._directory} is not to be had"
            f" ({'; '.join(reasons)}); restore it from a backup or take the latest"
        )

    def _move_aside(self, steps: Iterable[int]) -> None:
        with self._disk_errors():
            self._manager.close()
            for step in steps if processes.is_first() else ():
                damaged = self._directory / str(step)
                damaged.rename(files.unused(damaged.with_name(f"{step}.corrupt")))
            processes.gather("moved")
            self._manager = self._open()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, 300)}"


def _inode(directory: Path) -> tuple[int, int]:
    stat = directory.stat()
    return stat.st_dev, stat.st_ino


KEEP_LATEST = 2


class Best:
    """The step of the highest score so far; to Orbax, its policy of what is kept.

    Not Orbax's own best: that deletes the newest step where it is not among the best,
    and a NaN takes the place of the best one.

    Attributes:
        record: {"step": step, "score": score}, of the earliest where several are
            equal; None where there is none.
    """

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None

    def is_beaten_by(self, score: float | None) -> bool:
        """Returns whether a score is higher; NaN, infinities and None never are."""
        if score is None or not math.isfinite(score):
            return False
        return self.record is None or score > self.record["score"]

    def offer(self, step: int, score: float | None) -> None:
        """Takes note of a step, if it is better."""
        if self.is_beaten_by(score):
            self.record = {"step": step, "score": score}

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        """Returns for each step, of which the newest are last, whether it is kept."""
        best = None if self.record is None else self.record["step"]
        latest = [info.step for info in checkpoints[-KEEP_LATEST:]]
        return [info.step in latest or info.step == best for info in checkpoints]
