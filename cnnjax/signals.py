"""SIGTERM and Ctrl-C ask a run to save and stop; a second one kills it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from cnnjax.errors import RunError

STOPPING = (signal.SIGTERM, signal.SIGINT)
STDOUT = 1


class StopRequestedError(RunError):
    """The run was asked to stop, and has saved.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for Ctrl-C, as a shell reports them.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


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
        # Not print: the signal may have come in the middle of one, which would raise.
        with contextlib.suppress(OSError):
            os.write(
                STDOUT,
                f"{signal.Signals(signum).name}: saving after the step in flight;"
                " a second signal kills at once\n".encode(),
            )

    found = {signum: signal.signal(signum, ask) for signum in STOPPING}
    try:
        yield request
    finally:
        for signum, handler in found.items():
            signal.signal(signum, handler)
