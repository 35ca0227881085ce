"""The two ways a command fails: the user can mend it, or the run broke."""


class InputError(ValueError):
    """Bad usage, configuration or input; nothing was written or lost.

    The message is one line: what was got, what is needed, what to do about it.
    The scripts print it without a traceback and exit with 2.
    """


class MissingPackageError(InputError):
    """A package that only some things need is not installed."""


class RunError(RuntimeError):
    """A run that failed while running: a non-finite loss, a full disk.

    The message is one line. The scripts print it without a traceback and exit with 1.
    """


def one_line(error: BaseException, most: int | None = None) -> str:
    """Returns an error's text on one line, or its type's name where it has none.

    Args:
        error: of any library; some write theirs over several lines.
        most: characters to keep; None for all.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__
