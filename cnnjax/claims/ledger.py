"""What has been measured so far: `claims.json`, written after every run and row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax import runs

FILE = "claims.json"


class Ledger:
    """Runs and rows by what they are of; whatever is in it is not done again."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there; `folder` is made when something is written.

        Raises:
            InputError: the file is not such a one.
        """
        self.path = folder / FILE
        found = runs.read_json(self.path) if self.path.exists() else {}
        self.runs: dict[str, Any] = found.get("runs", {})
        self.rows: dict[str, Any] = found.get("rows", {})

    def put_run(self, key: str, figures: Mapping[str, Any]) -> None:
        """Keeps the figures of a training."""
        self.runs[key] = dict(figures)
        self._write()

    def put_row(self, key: str, row: Mapping[str, Any]) -> None:
        """Keeps a finished row."""
        self.rows[key] = dict(row)
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(self.path, {"rows": self.rows, "runs": self.runs})
