"""The checkpoints of a run: which steps are kept, and from which it is resumed.

Orbax writes a step under another name and renames it when it is complete. A damaged
checkpoint is renamed, and the run is resumed from the one before it.
"""

import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from cnnjax.errors import InputError, RunError, one_line
from cnnjax.runtime import processes
from cnnjax.workdir import files, integrity
from cnnjax.workdir.integrity import not_finite


class Checkpoints:
    """The checkpoints of one run, `<directory>/<step>/`; a context manager.

    The newest two are kept, and the one with the highest score. Each records which that
    is, so that this is known even if the others are damaged. Saving is asynchronous:
    `check`, the next save or the end of the block raises the error of a save.

    Example:
        >>> state = cj.init_state(cj.make_recipe(cj.MLP()), (28, 28, 1), seed=0)
        >>> run = {"config": "mine", "data": "digits", "seed": 0}
        >>> with cj.Checkpoints("runs/kept", run=run) as checkpoints:
        ...     checkpoints.save(0, state, {"why": "an example"})
        ...     restored, about = checkpoints.restore_latest(state)
        >>> int(restored.step), about
        (0, {'why': 'an example'})
    """

    def __init__(
        self, directory: str | Path, *, run: Mapping[str, Any], read_only: bool = False
    ) -> None:
        """Opens the folder, and makes it unless `read_only`, which changes nothing.

        `run` is the run's identity (configuration hash, data fingerprint, seed), see
        `identity.make_identity`.

        Raises:
            InputError: the folder's path cannot be given to Orbax, which takes text.
        """
        self._directory = Path(os.path.expanduser(directory)).resolve()
        try:
            str(self._directory).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"got {str(self._directory)!r}, need a path that is text in UTF-8, as"
                " checkpoints are written with it; rename the folder, or set LC_ALL to"
                " a UTF-8 locale"
            ) from error
        self._run = dict(run)
        self._read_only = read_only
        self.best = Best()
        self._manager = self._open()
        self._inode = None if read_only else _inode(self._directory)

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self.best,
            cleanup_tmp_directories=not self._read_only,
            create=not self._read_only,
            read_only=self._read_only,
            # What it would set, with a warning.
            save_interval_steps=0 if self._read_only else 1,
            # Otherwise Orbax would read metrics, which are not saved here, from any
            # file in the folder, and fail on the first that is not JSON.
            lightweight_initialize=True,
        )
        absl = logging.getLogger("absl")
        level = absl.level
        if self._read_only:  # of which Orbax warns
            absl.setLevel(max(level, logging.ERROR))
        try:
            return ocp.CheckpointManager(self._directory, options=options)
        finally:
            absl.setLevel(level)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._disk_errors():
            self._manager.close()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax raises whatever its writers raise.
            raise RunError(
                f"a checkpoint could not be written to {self._directory}"
                f" ({_reason(error)}); {self._kept()}: see to the disk and run the same"
                " again"
            ) from error

    def _kept(self) -> str:
        """Returns what a failed save leaves; also where the folder has been moved."""
        with suppress(OSError):
            saved = any(path.name.isdecimal() for path in self._directory.iterdir())
            if not saved and _inode(self._directory) == self._inode:
                return "there is no earlier one"
        return "the earlier ones are kept"

    def steps(self) -> list[int]:
        """Returns the steps that are saved or being saved, in order."""
        return sorted(self._manager.all_steps())

    def check(self) -> None:
        """Raises RunError if a save has failed or the folder has been moved.

        It does not wait, and is fast enough to be called at every step.
        """
        with self._disk_errors():
            self._check_folder()
            if not self._manager.is_saving_in_progress():
                self._manager.wait_until_finished()

    def _check_folder(self) -> None:
        # A save that is running when the folder is moved makes a new one of that name.
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
        """Saves the state after `step` updates, unless it is saved already.

        Args:
            step: number of completed updates.
            state: a tree of arrays, which may be donated as soon as this returns.
            about: further facts about the state, as JSON.
            score: higher is better; None if it was not evaluated.

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
                f" {self._kept()}: lower optim.learning_rate in another --workdir, or"
                " look at the data"
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
        """Returns the newest intact state and its `about`; None without checkpoints.

        A step that cannot be read or does not match its digest is skipped with a
        warning, and renamed to `<step>.corrupt` (unless `read_only`) if an older one is
        intact. If none is, all keep their names, so that the next start fails as well.
        `like` is a tree of arrays with the structure, shapes, dtypes and shardings of
        the state.

        Raises:
            InputError: the checkpoint is of another network or another run.
            RunError: there are checkpoints, but none is intact.
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
            # All processes skip a step that one of them cannot read.
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
        """Returns the best state and its `about`; None if there is none.

        `like` is as for `restore_latest`.

        Raises:
            InputError: the checkpoint is of another network or another run.
            RunError: it is damaged, or so are all that record which step it is.
        """
        reasons, best = [], None
        for step in reversed(self.steps()):
            try:
                best = integrity.read_meta(self._manager, step)["best"]
                if best is None:
                    break
                where = self._manager, best["step"]
                state, meta = integrity.read(*where, like, self._run)
                return state, meta["about"]
            except InputError:
                raise
            except Exception as error:  # Orbax raises whatever its readers raise.
                damaged = best["step"] if best else step
                reasons.append(f"{damaged}: {_reason(error)}")
            if best:  # An older step may record another one, which is not as good.
                break
            why = f"warning: checkpoint {reasons[-1]}; it may be the best"
            print(why, file=sys.stderr)
        if not reasons:
            return None
        raise RunError(
            f"the best checkpoint in {self._directory} is not available"
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
    """Returns an error's type and text; of a long one both ends: one says the cause."""
    text = one_line(error)
    if len(text) > 500:
        text = f"{text[:300]} ... {text[-200:]}"
    return f"{type(error).__name__}: {text}"


def _inode(directory: Path) -> tuple[int, int]:
    stat = directory.stat()
    return stat.st_dev, stat.st_ino


KEEP_LATEST = 2


class Best:
    """The step with the highest score so far, as Orbax's preservation policy.

    Orbax's own policy for the best step deletes the newest step if it is not among the
    best, and takes a NaN for the best score.

    Attributes:
        record: {"step": step, "score": score}, the earliest of equal ones, or None.
    """

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None

    def is_beaten_by(self, score: float | None) -> bool:
        """Returns whether a score is higher; NaN, infinities and None never are."""
        if score is None or not math.isfinite(score):
            return False
        return self.record is None or score > self.record["score"]

    def offer(self, step: int, score: float | None) -> None:
        """Records a step if its score is the highest so far."""
        if self.is_beaten_by(score):
            self.record = {"step": step, "score": score}

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        """Returns whether each step is kept; the steps are in ascending order."""
        best = None if self.record is None else self.record["step"]
        latest = [info.step for info in checkpoints[-KEEP_LATEST:]]
        return [info.step in latest or info.step == best for info in checkpoints]
