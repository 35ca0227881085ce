"""Where the configurations of the scripts are: Python files with `get_config()`."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from cnnjax.errors import InputError


def with_path(argv: Sequence[str], default: str) -> list[str]:
    """Returns `argv` with `--config` first, pointing at a file that exists.

    Looked for from the current folder first, then from the folder of the scripts.

    Args:
        argv: a command line, the script first.
        default: the file for when it has no `--config`.

    Raises:
        InputError: there is no such file.
    """
    argv, path = list(argv), default
    # It must stand before the fields that override it.
    at, until = 1, 1
    for i, argument in enumerate(argv[1:], start=1):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            at, until, path = i, i + 2, argv[i + 1]
        elif argument.startswith(("--config=", "-config=")):
            at, until, path = i, i + 1, argument.split("=", 1)[1]
    scripts = Path(argv[0]).resolve().parent
    candidates = [Path(path).resolve(), scripts / path]
    for candidate in candidates:
        if candidate.is_file():
            del argv[at:until]
            return [argv[0], f"--config={candidate}", *argv[1:]]
    looked = " nor at ".join(str(candidate) for candidate in candidates)
    raise InputError(f"got --config={path}, found neither at {looked}; name a file")


def name(default: str) -> str:
    """Returns the stem of the config file named on the command line."""
    path = with_path(sys.argv, default)[1].split("=", 1)[1]
    return Path(path).stem


def recipe(stem: str) -> ConfigDict:
    """Returns the configuration of a file of the scripts' `configs`."""
    path = Path(sys.argv[0]).resolve().parent / "configs" / f"{stem}.py"
    config: ConfigDict = runpy.run_path(str(path))["get_config"]()
    return config
