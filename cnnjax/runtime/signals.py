"""Handles SIGTERM and Ctrl-C: the first lets a run save and stop, a second kills it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from cnnjax.errors import RunError

STOPPING = (signal.SIGTERM, signal.SIGINT)
STDOUT = 1
# Written to the pipe of signal numbers to end its thread; no signal has number 0.
END = b"\0"


class StopRequestedError(RunError):
    """The run was asked to stop and has saved its state.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for Ctrl-C, as a shell reports them.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


def raise_if(signum: int | None) -> None:
    """Raises StopRequestedError for a signal; 0 and None mean that there was none."""
    if signum:
        raise StopRequestedError(signum)


class StopRequest:
    """Tells whether a stop was requested, and by which signal."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first SIGTERM or Ctrl-C inside the block into a flag.

    The first signal also restores the default actions, so that a second one kills the
    process at once. The previous handlers are restored at the end of the block.
    """
    request = StopRequest()

    def ask(signum: int, _: FrameType | None) -> None:
        request.signum = signum
        for stopping in STOPPING:
            signal.signal(stopping, signal.SIG_DFL)

    with _watched():
        found = {signum: signal.signal(signum, ask) for signum in STOPPING}
        try:
            yield request
        finally:
            for signum, handler in found.items():
                signal.signal(signum, handler)


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
    """Prints a message at the first signal, and ends the process at the second."""
    asked = False
    while (byte := os.read(reader, 1)) != END:
        signum = byte[0]
        if signum not in STOPPING:
            continue
        if asked:
            os._exit(128 + signum)
        asked = True
        # Not `print`, which raises if the signal came during another `print`.
        with contextlib.suppress(OSError):
            os.write(
                STDOUT,
                f"{signal.Signals(signum).name}: saving after the step, chunk,"
                " evaluation or compilation in flight; a second signal kills at"
                " once\n".encode(),
            )
