"""The files of a run: names, reading and writing, the lock, and rules for resuming."""

import itertools
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from cnnjax.config import filled, flatten
from cnnjax.errors import InputError, one_line
from cnnjax.workdir.identity import CHANGES_BYTES, MAY_CHANGE, PLACES, make_identity

CONFIG = "config.json"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
FINAL_METRICS = "final_metrics.json"
CHECKPOINTS = "checkpoints"
# Where the data lay as the run began; written when they lie elsewhere.
BEGAN = "began.json"
UNFINISHED = ".tmp"

LOCK, OWNER = ".lock", ".owner"

# What of the final metrics is printed for a finished run.
SUMMARY = {
    *("dataset", "steps", "train_seconds", "compile_seconds", "perf/examples_per_sec"),
}
# Of a run's folder, all others are files.
FOLDERS = (CHECKPOINTS, "report", "tensorboard")
# What a folder that is new to its user may hold, as systems and Git put it there.
EMPTY = (
    ".DS_Store",
    ".gitignore",
    ".gitkeep",
    "Thumbs.db",
    "desktop.ini",
    "lost+found",
)


@contextmanager
def open_run(
    workdir: Path,
    config: Mapping[str, Any],
    *,
    fingerprint: str,
    dataset: str,
    steps_may_change: bool,
) -> Iterator[None]:
    """Makes `workdir` a run of `config`, or checks that it is one, and holds its lock.

    `config` is nested and resolved; `fingerprint` and `dataset` (its name, for
    messages) are of the data; `steps_may_change` is False if the schedule depends on
    `train.steps`.

    Raises:
        InputError: the folder cannot be written, holds another run, or one on other
            data, or other files, or is in use by another process.
    """
    with writing(workdir, "workdir"):
        _check_no_strangers(workdir)
        _check_kinds(workdir)
    with locked(workdir, "workdir"):
        moved = _check_is_run_of(workdir, config, steps_may_change)
        check_same_data(workdir, fingerprint, dataset)
        if moved and not (workdir / BEGAN).exists():
            write_json(workdir / BEGAN, moved)
        write_json(workdir / CONFIG, config)
        yield


def _check_no_strangers(workdir: Path) -> None:
    if not workdir.is_dir() or (workdir / CONFIG).exists():
        return
    # A run that was killed while it started may leave these.
    ours = (LOCK, OWNER, f"{CONFIG}{UNFINISHED}", *EMPTY)
    strangers = sorted(p.name for p in workdir.iterdir() if p.name not in ours)
    if strangers:
        raise InputError(
            f"{workdir} is not empty ({strangers[0]}, ...) and holds no {CONFIG}:"
            " need a new folder or one of an earlier run; name another --workdir"
        )


def _check_kinds(workdir: Path) -> None:
    """Refuses a file in place of a folder that a run writes to, and the reverse."""
    for name in (CONFIG, MANIFEST, METRICS, FINAL_METRICS, BEGAN, *FOLDERS):
        path, of_run = workdir / name, "folder" if name in FOLDERS else "file"
        if path.exists() and path.is_dir() != (of_run == "folder"):
            raise InputError(
                f"{path} is no {of_run}, need a {of_run} of the run; move it away or"
                " name another --workdir"
            )


def _check_is_run_of(
    workdir: Path, config: Mapping[str, Any], steps_may_change: bool
) -> dict[str, Any]:
    """Returns the stored `identity.PLACES` if one of them differs, or else no field."""
    path = workdir / CONFIG
    if not path.exists():
        return {}
    refused, moved = [], False
    stored, asked = filled(read_json(path)), flatten(config)
    for name in sorted(stored.keys() | asked.keys()):
        before, after = stored.get(name), asked.get(name)
        if before == after:
            continue
        if name.startswith(CHANGES_BYTES):
            print(f"{name} {before} -> {after}: the results will differ in their bytes")
        elif name in PLACES:
            print(f"{name} {before!r} -> {after!r}: another way to the run's data")
            moved = True
        elif name not in MAY_CHANGE or (name == "train.steps" and not steps_may_change):
            refused.append(f"{name} {before!r} -> {after!r}")
    if refused:
        raise InputError(
            f"{workdir} holds another run, which differs in {', '.join(refused)};"
            " name another --workdir, or give the run's own values"
        )
    return {name: stored[name] for name in PLACES} if moved else {}


def began(workdir: Path) -> dict[str, Any]:
    """Returns the `identity.PLACES` with which a run began, where they have changed.

    Its checkpoints bear them in its identity. Otherwise returns no field.

    Raises:
        InputError: the file that records them is damaged.
    """
    path = workdir / BEGAN
    return read_json(path) if path.exists() else {}


def finished(workdir: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the final metrics if `workdir` holds the finished run of a flat `config`.

    Otherwise, if there is no such folder, and if they are damaged, returns None: the
    run goes on and writes them anew.
    """
    if not (workdir / FINAL_METRICS).exists() or not (workdir / CONFIG).exists():
        return None
    if filled(read_json(workdir / CONFIG)) != config:
        return None
    try:
        final = read_json(workdir / FINAL_METRICS)
    except InputError:
        return None
    whole = final.keys() >= SUMMARY and final["steps"] == config["train.steps"]
    return final if whole else None


def trained_on(workdir: Path) -> dict[str, Any]:
    """Returns the manifest's description of the data set that a run was trained on.

    It holds `name`, `version`, `fingerprint`, and `classes` in the order of the labels.

    Raises:
        InputError: there is no manifest, or it lacks one of these.
    """
    data = read_json(workdir / MANIFEST).get("data")
    needed = {"name", "version", "fingerprint", "classes"}
    if not isinstance(data, dict) or not needed <= data.keys():
        raise InputError(
            f"{workdir / MANIFEST} lacks {', '.join(sorted(needed))} of its data;"
            " is this a run's --workdir?"
        )
    return data


def check_same_data(workdir: Path, fingerprint: str, dataset: str) -> None:
    """Raises InputError if a folder holds a run on data of another fingerprint."""
    if not (workdir / MANIFEST).exists():
        return
    data = trained_on(workdir)
    if data["fingerprint"] != fingerprint:
        raise InputError(
            f"{workdir} holds a run on {data['name']}, whose pictures differ from what"
            f" was found as {dataset}; give it its own data or name another --workdir"
        )


def drop_metrics_after(path: Path, step: int) -> None:
    """Cuts `metrics.jsonl` back to what a run had logged when it reached `step`.

    Removes lines with `train/*` at `step` or later, lines with `eval/*` after `step`,
    and unreadable lines, such as a last one that was cut short when the run was killed.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            evaluated = any(name.startswith("eval") for name in record)
            if record["step"] < step or (evaluated and record["step"] == step):
                kept.append(line + "\n")
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    write_text(path, "".join(kept))


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
        InputError: it does not exist or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(
            f"{path} cannot be read ({reason}); is this a run's --workdir?"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; is this a run's --workdir?")
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes `text` atomically: to another file, which is then renamed.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        unfinished.write_text(text)
    except OSError as error:  # of a full disk it names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    unfinished.replace(path)


def unused(path: Path) -> Path:
    """Returns `path`, or with the first suffix -2, -3, ... that does not exist yet."""
    others = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(p for p in itertools.chain([path], others) if not p.exists())


@contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Makes a folder and holds its lock, which the end of the process releases.

    `flag` names the folder on the command line, for the messages.

    Raises:
        InputError: it cannot be written, or another process holds it.
    """
    with writing(folder, flag):
        folder.mkdir(parents=True, exist_ok=True)
        lock, owner = filelock.FileLock(folder / LOCK, mode=0o644), folder / OWNER
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:
            by = owner.read_text() if owner.exists() else "another process"
            raise InputError(
                f"{folder} is in use by {by}; wait for it, stop it, or name another"
                f" --{flag}"
            ) from error
    try:
        with writing(folder, flag):
            owner.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


@contextmanager
def writing(folder: Path, flag: str, advice: str = "name another") -> Iterator[None]:
    """Turns an OSError inside into one line that names the folder, `flag` and `advice`.

    Raises:
        InputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        is_file = isinstance(error, FileExistsError)
        reason = "it is a file or a broken link" if is_file else error.strerror
        raise InputError(
            f"got --{flag}={folder}, need a folder that can be written"
            f" ({reason}); {advice}"
        ) from error


def of_workdir(workdir: Path) -> dict[str, Any]:
    """Returns the identity of the run in a folder, see `identity.make_identity`.

    Raises:
        InputError: `workdir` holds no run.
    """
    config = read_json(workdir / CONFIG)
    return make_identity(config, trained_on(workdir)["fingerprint"], began(workdir))
