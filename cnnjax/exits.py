"""How a script ends: errors to one line and an exit code."""

import io
import os
import sys
from collections.abc import Callable, Sequence

from cnnjax import backend
from cnnjax.errors import InputError, RunError

DONE, FAILED, BAD_INPUT, CTRL_C = 0, 1, 2, 130


def exit_with(parse_and_run: Callable[[Sequence[str]], None], usage: str) -> None:
    """Runs a script and exits: 0 done and `--help`, 2 bad usage, config or input.

    1 failed while running, 143 and 130 stopped by SIGTERM and Ctrl-C. Errors are one
    line on standard error.

    Args:
        parse_and_run: takes the command line.
        usage: what `--help` prints.
    """
    backend.quieten()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be text: print them all the same, as stderr does.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = DONE
    try:
        if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(sys.argv):
            print(usage)
        else:
            parse_and_run(sys.argv)
    except InputError as error:
        code = _complain(error, BAD_INPUT)
    except (RunError, OSError, MemoryError) as error:
        code = _complain(error, getattr(error, "exit_code", FAILED))
    except KeyboardInterrupt:
        code = _complain("stopped by Ctrl-C", CTRL_C)
    sys.exit(_flushed(code))


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is left goes nowhere, or the interpreter fails at it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or _complain(error, FAILED)
    return code


def _complain(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
