"""How a script ends: from an error to one line and an exit code."""

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from cnnjax.errors import InputError, RunError
from cnnjax.runtime import backend, signals

DONE, FAILED, BAD_INPUT, CTRL_C, BROKEN_PIPE = 0, 1, 2, 130, 141


def exit_with(parse_and_run: Callable[[Sequence[str]], None], usage: str) -> None:
    """Calls `parse_and_run` with the command line, or prints `usage`, and exits.

    The exit code is 0 when done and for `--help`, 2 for bad usage, configuration or
    input, 1 for a failure while running, and 128 + its number after a signal: 143 for
    SIGTERM, 130 for Ctrl-C, 141 where standard output was closed. Errors are one line
    on standard error.
    """
    _open_streams()
    backend.quieten()
    # The scripts draw into files alone, and Matplotlib would refuse an unknown backend.
    os.environ["MPLBACKEND"] = "agg"
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may not be valid text; escape them, as stderr does.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = DONE
    try:
        if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(sys.argv):
            print(usage)
        else:
            with backend.memory_errors():
                parse_and_run(sys.argv)
    except InputError as error:
        code = _complain(error, BAD_INPUT)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        code = BROKEN_PIPE
    except OSError as error:
        code = _complain(*_explained(error))
    except (RunError, MemoryError) as error:
        code = _complain(error, getattr(error, "exit_code", FAILED))
    except KeyboardInterrupt:
        code = _complain("stopped by Ctrl-C", CTRL_C)
    except Exception as error:
        explained = backend.error_of_environment(error)
        if explained is None:
            raise
        code = _complain(explained, BAD_INPUT)
    sys.exit(_flushed(code))


def _explained(error: OSError) -> tuple[str, int]:
    """Returns what to say of an error that the system reports, and the exit code."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error}; free some space and call the same command again", FAILED
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{error}; need a path that can be used; correct it", BAD_INPUT
    return str(error), FAILED


def _open_streams() -> None:
    """Opens standard streams that the caller has closed, onto nothing.

    Otherwise the next file to be opened would get the number of one of them, and the
    messages of C++ would be written into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode))


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        signals.discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return code or BROKEN_PIPE
        return code or _complain(error, FAILED)
    return code


def _complain(error: object, code: int) -> int:
    try:
        said = str(error) or type(error).__name__
        print(f"error: {said}", file=sys.stderr, flush=True)
    except OSError:
        signals.discard(sys.stderr)
    return code
