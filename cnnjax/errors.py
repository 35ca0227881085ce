"""The two kinds of failure of a command: bad input, or an error while it ran."""


class InputError(ValueError):
    """Bad usage, configuration or input; nothing was written or lost.

    The message is one line: what was given, what is needed, and what to do about it.
    The scripts print it without a traceback and exit with code 2.
    """

    def __str__(self) -> str:
        """Returns the message; a line break in it, as of a path, is escaped."""
        return "\\n".join(super().__str__().splitlines())


class MissingPackageError(InputError):
    """An optional package that is needed here is not installed."""


class RunError(RuntimeError):
    """A failure while running, such as a non-finite loss or a full disk.

    The message is one line; the scripts print it without a traceback and exit with 1.
    """


def one_line(error: BaseException, most: int | None = None) -> str:
    """Returns an error's text on one line, or its type's name if it has no text.

    At most `most` characters are kept; None keeps all.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__
