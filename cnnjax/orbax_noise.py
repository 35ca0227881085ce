"""Keeps off the console what Orbax reports and raises as well."""

import inspect
import logging
import os
import sys
from collections.abc import Callable


class _Hook:
    """Reports what could not be raised, but for what a failed read or write leaves.

    Where one array fails Orbax closes its event loop and raises. TensorStore then calls
    the closed loop back about the other arrays, and the coroutines that waited for them
    complain of having been given up, both at any later time.
    """

    def __init__(self, report: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._report = report

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        source = unraisable.object
        given_up = inspect.iscoroutine(source) and "orbax" in source.cr_code.co_filename
        late = str(unraisable.exc_value) == "Event loop is closed"
        if not given_up and not late:
            self._report(unraisable)


def keep_quiet() -> None:
    """Silences it for the rest of the process, unless asked for; twice is as once.

    TF_CPP_MIN_LOG_LEVEL=0 asks for it, as it does of TensorFlow.

    Its log has several lines on every save, a warning on every restore and a traceback
    on every error, which it raises too; asyncio adds those that nobody asked for.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        return
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)
