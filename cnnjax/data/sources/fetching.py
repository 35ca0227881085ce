"""Downloads a file from the first address that gives it: resumed, verified and kept.

What has come so far is continued at any address, because all of them are to give the
same file, and only its content decides whether they did. An ETag would tie the part to
one server, and would still not tell whether the file is the wanted one.
"""

import datetime
import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import filelock
import requests
import urllib3
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cnnjax.data.dataset import MissingDatasetError
from cnnjax.data.sources.hosts import HOST_RATES, estimate
from cnnjax.errors import InputError, RunError, one_line

# Most bytes that a file may have; CIFAR-10's archive has 170 MB.
MAX_BYTES = 2**30

# Seconds until a host must accept a connection, and between two pieces of an answer.
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0

# Seconds before the next tries at an address, for as long as nothing new arrives. One
# that has not yet sent anything is given up after the first of them.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)

# Seconds between two lines about the progress where there is no terminal.
LINE_SECONDS = 30.0

# Bytes to read at most at a time; fewer are taken as soon as they arrive.
PIECE = 2**16

_NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError)


class _BrokenOffError(Exception):
    """An address did not send all of the file, and may do so at the next try."""


def fetch(urls: Sequence[str], target: Path, verify: Callable[[Path], None]) -> str:
    """Downloads a file to `target` from the first address that gives the wanted one.

    Until it is verified, the file is `target` with the suffix `.part`. The part stays
    if the process is killed or the connection fails, and the next call continues it. A
    file that is not the wanted one is removed. If another process downloads the same
    file, this one waits for it. The progress is shown on standard error.

    Args:
        urls: where to get the file from, in the order in which they are tried.
        target: where to keep the file; its folder is created if it does not exist.
        verify: takes a path, and raises InputError if the file is not the wanted one.

    Returns:
        the address that gave the file; "" if it was there already.

    Raises:
        MissingDatasetError: no address gives the file.
        InputError: an address is not of http or https, the folder cannot be written, or
            `target` exists and is not the wanted file.
        RunError: the disk is full.
    """
    for url in urls:
        if not url.lower().startswith(("http://", "https://")):
            raise InputError(
                f"got the address {url!r}, need one that begins with http:// or"
                " https://; correct it"
            )
    part = target.with_name(f"{target.name}.part")
    failures = []
    with _writing(target), _locked(target):
        if target.exists():
            verify(target)
            return ""
        for url in urls:
            try:
                _fetch_from(url, part, verify)
            except InputError as error:
                failures.append(f"{_public(url)}: {error}")
                _say(failures[-1])
                continue
            part.replace(target)
            _say(f"{target} is complete and verified")
            return url
        size = _size(part)
        if not size:
            part.unlink(missing_ok=True)
    kept = f", which goes on from {_megabytes(size)}," if size else ""
    raise MissingDatasetError(
        f"{target.name} could not be downloaded ({'; '.join(failures)}); try again"
        f" later{kept} or give another address"
    )


def _fetch_from(url: str, part: Path, verify: Callable[[Path], None]) -> None:
    """Makes `part` the wanted file, or raises InputError if the address has another."""
    anew = False
    while True:
        continued = _complete(url, part)
        try:
            verify(part)
            return
        except InputError:
            part.unlink()
            if anew or not continued:
                raise
        # Either the earlier part or what was now added to it was of another file.
        _say(f"{part} was continued and is not the wanted file; starting anew")
        anew = True


def _complete(url: str, part: Path) -> bool:
    """Receives what `part` lacks, in as many tries as it takes while more arrives.

    Returns:
        whether the last try continued the part, instead of starting it anew.

    Raises:
        InputError: the address does not give a whole file.
    """
    furthest, pauses = _size(part), iter(PAUSES[:1])
    while True:
        try:
            return _receive(url, part)
        except _BrokenOffError as error:
            if _size(part) > furthest:
                furthest, pauses = _size(part), iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise InputError(str(error)) from error
            _say(f"{_public(url)}: {error}; trying again in {pause:g} s")
            time.sleep(pause)


def _receive(url: str, part: Path) -> bool:
    """Receives what `part` lacks in one try; raises and returns as `_complete`.

    Raises:
        InputError: the address does not give the file.
        _BrokenOffError: it did not send all of it; `part` has what came.
    """
    had = _size(part)
    # A compressed answer would have other bytes than the file, and no use of ranges.
    headers = {"Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    timeout = (CONNECT_SECONDS, READ_SECONDS)
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=timeout)
    except ValueError as error:  # of requests, too, where an address is none
        raise InputError(f"cannot be used ({one_line(error, 200)})") from error
    except _NETWORK_ERRORS as error:
        raise _BrokenOffError(f"cannot be reached ({_reason(error)})") from error
    except OSError as error:  # of the certificates that the environment names
        raise InputError(f"cannot be used ({one_line(error, 200)})") from error
    with response:
        if had and response.status_code == 416:  # there is nothing from there on
            return True  # `verify` tells whether the part is the file.
        start, total = _check(response, part, had)
        if total is not None and total > MAX_BYTES:
            raise InputError(
                f"has a file of {total} bytes; at most {MAX_BYTES} are expected"
            )
        _announce(url, part, start, total)
        # A server without ranges sends again what is there, which is passed over: if it
        # breaks off, nothing is lost.
        again = had - start if total is None or total >= had else 0
        size = start = start + again
        with (
            part.open("ab" if start else "wb") as file,
            _progress(start, total) as show,
        ):
            for piece in _pieces(response, again):
                file.write(piece)
                file.flush()  # what came is kept even if the process is killed
                size += len(piece)
                show(size)
                if size > MAX_BYTES:
                    break
            # So that even a power failure leaves no verified file that is not whole.
            os.fsync(file.fileno())
    if size > MAX_BYTES:
        part.unlink()
        raise InputError(f"sends more than the {MAX_BYTES} bytes that are expected")
    if total is not None and size < total:
        raise _BrokenOffError(f"sent {size} of {total} bytes")
    return start > 0


def _check(response: requests.Response, part: Path, had: int) -> tuple[int, int | None]:
    """Returns at which byte the answer starts, and the file's size if it is said.

    `had` is the size of `part`, and the byte from which on the file was asked for.

    Raises:
        InputError: the answer is not a file.
        _BrokenOffError: the server is in trouble, or sends other bytes than asked for.
    """
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise _BrokenOffError(f"answers with HTTP status {status}")
    if status != 200 and not (status == 206 and had):
        raise InputError(f"answers with HTTP status {status}")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise InputError("sends a web page in place of the file")
    left = response.raw.length_remaining  # None where the answer does not say it
    if status == 200:
        return 0, left
    span = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span, re.ASCII)
    if not match or int(match[1]) != had:
        part.unlink()  # The next try starts anew, and so asks for no range.
        raise _BrokenOffError(
            f"sends {span!r} where bytes from {had} on were asked for"
        )
    if match[2] != "*":
        return had, int(match[2])
    return had, None if left is None else had + left


def _pieces(response: requests.Response, again: int) -> Iterator[bytes]:
    """Yields the body after `again` bytes; raises _BrokenOffError if it ends early."""
    try:
        while piece := response.raw.read1(PIECE, decode_content=False):
            if new := piece[again:]:
                yield new
            again = max(0, again - len(piece))
    except urllib3.exceptions.TimeoutError as error:
        raise _BrokenOffError(f"sent nothing for {READ_SECONDS:g} s") from error
    except urllib3.exceptions.HTTPError as error:
        raise _BrokenOffError("broke off the connection") from error


def _announce(url: str, part: Path, start: int, total: int | None) -> None:
    size = "unknown size" if total is None else _megabytes(total)
    line = f"downloading {_public(url)} to {part.with_suffix('')}: {size}"
    if start:
        line += f", going on from {_megabytes(start)}"
    if total is not None and urlsplit(url).hostname in HOST_RATES:
        line += f"; {estimate(url, total - start)}"
    _say(line)


@contextmanager
def _progress(start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Draws a bar if standard error is a terminal, and prints lines otherwise.

    Yields:
        a function that takes the number of bytes of the file that are there.
    """
    console = Console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        columns = (
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        # Without redirection, what goes to standard output stays there.
        with Progress(
            *columns, console=console, transient=True, redirect_stdout=False
        ) as bar:
            console.show_cursor(True)  # as a process that is killed leaves it
            task = bar.add_task("", total=total, completed=start)
            yield lambda size: bar.update(task, completed=size)
        return
    began = shown = time.monotonic()

    def show(size: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < LINE_SECONDS:
            return
        shown = now
        rate = (size - start) / (now - began)
        line = f"{_megabytes(size)} at {rate / 1e3:.0f} kB/s"
        if total is not None:
            left = datetime.timedelta(seconds=round((total - size) / rate))
            line += f", {left} left of {_megabytes(total)}"
        _say(line)

    yield show


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"), mode=0o644)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        _say(f"another process downloads {target}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turns an OSError inside into one line, of a RunError if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"the disk is full where {target} is downloaded to; free some space and"
                " start again, which goes on from there"
            ) from error
        raise InputError(
            f"{target} cannot be written ({error.strerror}); a folder that can be"
            " written is needed; change its permissions or name another"
        ) from error


def _reason(error: BaseException) -> str:
    """Returns what the system said, without what requests and urllib3 put around it."""
    inner: BaseException | None = error
    while isinstance(inner, _NETWORK_ERRORS):
        inner = inner.__cause__ or inner.__context__
    known = isinstance(inner, OSError | HTTPException)
    return one_line(inner if inner and known else error, 200)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _public(url: str) -> str:
    """Returns an address without the name and password that it may hold."""
    return re.sub(r"//[^/]*@", "//", url, count=1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
