"""The two kinds of failure of a command: bad input, or an error while it ran."""

import sys
import traceback

# Their frames are passed over where an error is traced to somebody's own code.
_LIBRARIES = sys.stdlib_module_names | {
    *("absl", "cnnjax", "flax", "jax", "jaxlib", "ml_collections", "numpy", "optax")
}


class InputError(ValueError):
    """Bad usage, configuration or input; nothing was written or lost.

    The message is one line: what was given, what is needed, and what to do about it.
    The scripts print it without a traceback and exit with code 2.

    Example:
        >>> try:
        ...     cj.load_dataset("pictures.npz")
        ... except cj.InputError as error:
        ...     print(str(error)[:12])
        pictures.npz
    """

    def __str__(self) -> str:
        """Returns the message; a line break in it, as of a path, is escaped."""
        return "\\n".join(super().__str__().splitlines())


class MissingPackageError(InputError):
    """An optional package that is needed here is not installed."""


class RunError(RuntimeError):
    """A failure while running, such as a non-finite loss or a full disk.

    The message is one line; the scripts print it without a traceback and exit with 1.

    Example:
        >>> try:
        ...     raise cj.RunError("cross_entropy is nan at step 3")
        ... except cj.RunError as error:
        ...     print(error)
        cross_entropy is nan at step 3
    """


def one_line(error: BaseException, most: int | None = None) -> str:
    """Returns an error's text on one line, or its type's name if it has no text.

    At most `most` characters are kept; None keeps all.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def raised_at(error: BaseException, own: str = "") -> str:
    """Returns " (FILE:LINE)" of the last call in a user's code that led to an error.

    That is code of no library, and of the module `own` even if it is of this package.
    Without such a call it returns "".
    """
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module == own or module.partition(".")[0] not in _LIBRARIES:
            found = f" ({frame.f_code.co_filename}:{line})"
    return found
