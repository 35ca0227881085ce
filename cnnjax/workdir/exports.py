"""A file that was exported, and beside it the card that describes it.

The card is a JSON object with, at least, `classes`, `dataset` and `sha256`, the digest
of the file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax.errors import InputError
from cnnjax.workdir import files


class NotAnExportError(InputError):
    """A file is not what `experiments/export.py` wrote."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be read as an export ({reason}); need the file and its card"
            " as experiments/export.py wrote them; export the run again"
        )


def card_path(path: Path) -> Path:
    """Returns the path of an export's card: that of the export with `.json` added."""
    return path.with_name(f"{path.name}.json")


def write(path: Path, content: bytes, card: Mapping[str, Any]) -> None:
    """Writes an export to `path` and its card beside it, each atomically.

    The folder must exist. The export's SHA-256 is added to the card.
    """
    digest = hashlib.sha256(content).hexdigest()
    unfinished = path.with_name(path.name + files.UNFINISHED)
    unfinished.write_bytes(content)
    unfinished.replace(path)
    files.write_json(card_path(path), {**card, "sha256": digest})


def read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Returns the content of an export and its card.

    Raises:
        InputError: one of the files is missing.
        NotAnExportError: one of them was not written by `write`.
    """
    try:
        content = path.read_bytes()
        card = json.loads(card_path(path).read_bytes())
        needed = (list(card["classes"]), card["sha256"], card["dataset"]["name"])
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}); need an export and"
            " its card beside it, as experiments/export.py writes them"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotAnExportError(card_path(path), "it is no card of an export") from error
    if hashlib.sha256(content).hexdigest() != needed[1]:
        raise NotAnExportError(path, "its SHA-256 is not that of its card")
    return content, card
