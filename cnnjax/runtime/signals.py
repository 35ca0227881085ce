"""Handles what asks a run to save and stop: signals, and output that nobody reads.

The first signal lets the run save. A second SIGTERM or Ctrl-C kills it; the others are
sent by machines, which may repeat them: a terminal that closes, and batch systems.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from cnnjax.errors import RunError

KILLING = (signal.SIGTERM, signal.SIGINT)
# SLURM and Grid Engine send the last three before the time of a job is over.
WARNING = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
STOPPING = KILLING + WARNING
STDOUT = 1
# Written to the pipe of signal numbers to end its thread; no signal has number 0.
END = b"\0"


class StopRequestedError(RunError):
    """The run was asked to stop and has saved its state.

    Attributes:
        exit_code: 128 + the signal's number, as a shell reports it: 143 for SIGTERM,
            130 for Ctrl-C. A broken pipe counts as SIGPIPE, 141.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class StopRequest:
    """Tells whether a stop was requested, and why.

    Attributes:
        signum: the first signal, or SIGPIPE where output could not be written.
        error: the error of that output.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.error: OSError | None = None


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first signal of `STOPPING` inside the block into a flag.

    So does standard output or standard error that cannot be written. The first SIGTERM
    or Ctrl-C also restores their default actions, so that a second one kills the
    process at once. A signal of `WARNING` that is ignored, as `nohup` has SIGHUP
    ignored, stays so. Handlers and streams are restored at the end of the block. In
    another thread than the main one nothing is turned into a flag: handlers and streams
    belong to the whole process.

    Raises:
        RunError: in place of StopRequestedError where output failed for another reason
            than that nobody reads it, such as a full disk.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(signum: int, _: FrameType | None) -> None:
        request.signum = request.signum or signum
        if signum in KILLING:
            for killing in KILLING:
                signal.signal(killing, signal.SIG_DFL)

    handled = [
        signum
        for signum in STOPPING
        if signum in KILLING or signal.getsignal(signum) is not signal.SIG_IGN
    ]
    with _watched(), _reported(request):
        found = {signum: signal.signal(signum, ask) for signum in handled}
        try:
            yield request
        except StopRequestedError:
            if request.error and not isinstance(request.error, BrokenPipeError):
                raise RunError(f"output cannot be written: {request.error}") from None
            raise
        finally:
            for signum, handler in found.items():
                signal.signal(signum, handler)


@contextlib.contextmanager
def _reported(request: StopRequest) -> Iterator[None]:
    """Lets a stream that cannot be written ask for a stop, in place of an error."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            if stream is not None:  # Python's value of one that the caller has closed
                output: Any = _Output(stream, request)
                stack.enter_context(redirect(output))
        yield


class _Output:
    """A stream; where it cannot be written, it asks the run to stop, and is mute."""

    def __init__(self, stream: Any, request: StopRequest) -> None:
        self._stream, self._request = stream, request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function: Callable[..., Any], *arguments: str) -> None:
        try:
            function(*arguments)
        except OSError as error:
            discard(self._stream)
            if self._request.signum is None:
                self._request.signum, self._request.error = signal.SIGPIPE, error


def discard(stream: Any) -> None:
    """Sends what a stream still holds, and all that is written later, to nowhere.

    Otherwise the interpreter would fail to flush it once more, at its end.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError):  # some streams have no number
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Reports every signal to another thread through a pipe.

    Python calls a signal handler only between two Python instructions, and a single one
    may compile a program for minutes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writer, END)
        watcher.join()
        os.close(reader)
        os.close(writer)


def _watch(reader: int) -> None:
    """Prints a message at the first signal; a second of `KILLING` ends the process."""
    asked: list[int] = []
    while (byte := os.read(reader, 1)) != END:
        signum = byte[0]
        if signum not in STOPPING:
            continue
        if signum in KILLING and set(KILLING) & set(asked):
            os._exit(128 + signum)
        asked.append(signum)
        if len(asked) > 1:
            continue
        # Not `print`, which raises if the signal came during another `print`.
        with contextlib.suppress(OSError):
            os.write(
                STDOUT,
                f"{signal.Signals(signum).name}: saving after the step, chunk,"
                " evaluation or compilation in flight; a second SIGTERM or Ctrl-C kills"
                " at once\n".encode(),
            )
