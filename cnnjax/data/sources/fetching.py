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
from contextlib import contextmanager, suppress
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


class _OtherRangeError(_BrokenOffError):
    """It sent other bytes than it was asked for, and is not asked for some again."""


def fetch(
    urls: Sequence[str], target: Path, verify: Callable[[Path], None], size: int
) -> str:
    """Downloads a file to `target` from the first address that gives the wanted one.

    Until it is verified, the file is `target` with the suffix `.part`. The part stays
    if the process is killed or the connection fails, and the next call continues it. A
    file that is not the wanted one is removed. If another process downloads the same
    file, this one waits for it. The progress is shown on standard error.

    Args:
        urls: where to get the file from, in the order in which they are tried.
        target: where to keep the file; its folder is created if it does not exist.
        verify: takes a path, and raises InputError if the file is not the wanted one.
        size: bytes of the wanted file; an address with another one is left at once.

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
    with _writing(target), locked(target):
        if target.exists():
            verify(target)
            return ""
        for url in urls:
            try:
                _fetch_from(url, part, verify, size)
            except InputError as error:
                failures.append(f"{_public(url)}: {error}")
                _say(failures[-1])
                continue
            part.replace(target)
            _say(f"{target} is complete and verified")
            return url
        had = _size(part)
        if not had:
            part.unlink(missing_ok=True)
    kept = f", which goes on from {_megabytes(had)}," if had else ""
    raise MissingDatasetError(
        f"{target.name} could not be downloaded ({'; '.join(failures)}); try again"
        f" later{kept} or give another address"
    )


def _fetch_from(
    url: str, part: Path, verify: Callable[[Path], None], size: int
) -> None:
    """Makes `part` the wanted file, or raises InputError if the address has another."""
    anew = False
    while True:
        continued = _complete(url, part, size)
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


def _complete(url: str, part: Path, size: int) -> bool:
    """Receives what `part` lacks, in as many tries as it takes while more arrives.

    Returns:
        whether the last try continued the part, instead of starting it anew.

    Raises:
        InputError: the address does not give a whole file.
    """
    furthest, pauses, ranges = _size(part), iter(PAUSES[:1]), True
    while True:
        try:
            return _receive(url, part, size, ranges)
        except _BrokenOffError as error:
            ranges = ranges and not isinstance(error, _OtherRangeError)
            if _size(part) > furthest:
                furthest, pauses = _size(part), iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise InputError(str(error)) from error
            _say(f"{_public(url)}: {error}; trying again in {pause:g} s")
            time.sleep(pause)


def _receive(url: str, part: Path, size: int, ranges: bool) -> bool:
    """Receives what `part` lacks in one try; raises and returns as `_complete`.

    Without `ranges` the whole file is asked for, and what is there is passed over.

    Raises:
        InputError: the address does not give the file.
        _BrokenOffError: it did not send all of it; `part` has what came.
    """
    had = _size(part)
    if had >= size:
        return True  # `verify` tells whether the part is the file.
    # A compressed answer would have other bytes than the file, and no use of ranges.
    headers, asked = {"Accept-Encoding": "identity"}, had if ranges else 0
    if asked:
        headers["Range"] = f"bytes={asked}-"
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
        start = _check(response, asked, size)
        _announce(url, part, start, size)
        got = had
        with part.open("ab") as file, _progress(had, size) as show:
            # A server without ranges sends again what is there, which is passed over:
            # if it breaks off, nothing is lost.
            for piece in _pieces(response, had - start):
                got += len(piece)
                if got > size:
                    file.truncate(had)
                    raise InputError(f"sends more than the file's {size} bytes")
                file.write(piece)
                file.flush()  # what came is kept even if the process is killed
                show(got)
            # So that even a power failure leaves no verified file that is not whole.
            os.fsync(file.fileno())
    if got < size:
        raise _BrokenOffError(f"sent {got} of {size} bytes")
    return had > 0


def _check(response: requests.Response, asked: int, size: int) -> int:
    """Returns at which byte of the file the answer starts.

    `asked` is the byte from which on it was asked for; `size` is the wanted file's.

    Raises:
        InputError: the answer is not the file.
        _BrokenOffError: the server is in trouble, or sends other bytes than asked for.
    """
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise _BrokenOffError(f"answers with HTTP status {status}")
    if status == 416 and asked:
        raise _OtherRangeError("gives no part of the file")
    if status != 200 and not (status == 206 and asked):
        raise InputError(f"answers with HTTP status {status}")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise InputError("sends a web page in place of the file")
    start, total = 0, response.raw.length_remaining  # None where it is not said
    if status == 206:
        span = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span, re.ASCII)
        if not match or int(match[1]) != asked:
            raise _OtherRangeError(
                f"sends {span!r} where bytes from {asked} on were asked for"
            )
        start, total = asked, None if match[2] == "*" else int(match[2])
    if total not in (None, size):
        raise InputError(f"has a file of {total} bytes, need one of {size}")
    return start


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


def _announce(url: str, part: Path, start: int, size: int) -> None:
    line = f"downloading {_public(url)} to {part.with_suffix('')}: {_megabytes(size)}"
    if start:
        line += f", going on from {_megabytes(start)}"
    if urlsplit(url).hostname in HOST_RATES:
        line += f"; {estimate(url, size - start)}"
    _say(line)


@contextmanager
def _progress(start: int, total: int) -> Iterator[Callable[[int], None]]:
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
        left = datetime.timedelta(seconds=round((total - size) / rate))
        of = f"{left} left of {_megabytes(total)}"
        _say(f"{_megabytes(size)} at {rate / 1e3:.0f} kB/s, {of}")

    yield show


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds a lock on what is made at `target`, once no other process does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"), mode=0o644)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        _say(f"another process fetches or prepares {target}: waiting for it")
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # of the file system
            raise
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
    with suppress(OSError):  # where nobody reads it any more
        print(line, file=sys.stderr, flush=True)
