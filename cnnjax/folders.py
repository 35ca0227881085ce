"""A folder to write into: named, made, and held by one process at a time."""

import fcntl
import itertools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnjax.errors import InputError

LOCK = ".lock"


def unused(path: Path) -> Path:
    """Returns `path`, or with -2, -3, ... behind it where there is one already."""
    others = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(p for p in itertools.chain([path], others) if not p.exists())


@contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Makes a folder and holds its lock.

    The lock is the kernel's (`flock`): it ends with the process, however that ends.

    Args:
        folder: any.
        flag: which names it on the command line, for the messages.

    Raises:
        InputError: it cannot be written, or another process holds it.
    """
    with writing(folder, flag):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(lock, folder, flag)
        yield
    finally:
        os.close(lock)


@contextmanager
def writing(folder: Path, flag: str, advice: str = "name another") -> Iterator[None]:
    """Says in one line that a folder cannot be written, where that shows within.

    Args:
        folder: what is written to.
        flag: which names it on the command line.
        advice: what to do about it.

    Raises:
        InputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"got --{flag}={folder}, need a folder that can be written"
            f" ({error.strerror}); {advice}"
        ) from error


def _lock(lock: int, folder: Path, flag: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(lock, 100).decode(errors="replace") or "another process"
        raise InputError(
            f"{folder} is in use by {owner}; wait for it, stop it, or name another"
            f" --{flag}"
        ) from error
    os.truncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {platform.node()}".encode())
