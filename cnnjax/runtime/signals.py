"""SIGTERM and Ctrl-C ask a run to save and stop; a second one kills it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from cnnjax.errors import RunError

STOPPING = (signal.SIGTERM, signal.SIGINT)
STDOUT = 1
# Written to the pipe of signals, where no signal has this number.
END = b"\0"


class StopRequestedError(RunError):
    """The run was asked to stop, and has saved.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for Ctrl-C, as a shell reports them.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


def raise_if(signum: int | None) -> None:
    """Raises StopRequestedError where a signal has asked for a stop; 0 is none."""
    if signum:
        raise StopRequestedError(signum)


class StopRequest:
    """Whether a stop was asked for, and by which signal."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first SIGTERM or Ctrl-C inside the block into a flag.

    The first signal sets the flag and restores the default action, so that a second one
    kills at once. The handlers found are put back at the end.
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
    """Has another thread told of every signal, by way of a pipe.

    Python calls a handler between two of its own instructions, of which there are none
    in the minutes that a compilation may take.
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
    """Says what the first signal does; a second one ends the process."""
    asked = False
    while (byte := os.read(reader, 1)) != END:
        signum = byte[0]
        if signum not in STOPPING:
            continue
        if asked:
            os._exit(128 + signum)
        asked = True
        # Not print: the signal may have come in the middle of one, which would raise.
        with contextlib.suppress(OSError):
            os.write(
                STDOUT,
                f"{signal.Signals(signum).name}: saving after the step, chunk,"
                " evaluation or compilation in flight; a second signal kills at"
                " once\n".encode(),
            )
