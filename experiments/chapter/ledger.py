"""What has been measured so far: `claims.json`, written after every run and row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax.errors import InputError
from cnnjax.workdir import files

FILE = "claims.json"


class Ledger:
    """Runs and rows by what they are of; whatever is in it is not done again."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there; `folder` is made when something is written.

        Raises:
            InputError: the file is not such a one.
        """
        self.path = folder / FILE
        found = files.read_json(self.path) if self.path.exists() else {}
        self.recipes: dict[str, Any] = found.get("recipes", {})
        self.runs: dict[str, Any] = found.get("runs", {})
        self.rows: dict[str, Any] = found.get("rows", {})

    def keep_recipes(self, recipes: Mapping[str, Mapping[str, Any]]) -> None:
        """Notes which recipes the runs are of: a run's key names their changes alone.

        Args:
            recipes: name of a file of `experiments/configs` -> flat fields, as JSON
                would give them back. A field that was not there yet is not compared.

        Raises:
            InputError: one is not what it was when the runs were measured.
        """
        for name, now in recipes.items():
            then = self.recipes.get(name, {})
            changed = [
                f"{field}={now[field]!r} (was {then[field]!r})"
                for field in now
                if field in then and then[field] != now[field]
            ]
            if changed:
                raise InputError(
                    f"configs/{name}.py now has {', '.join(changed)}, and the runs in"
                    f" {self.path} are of what it was: give --out=DIR for a table of"
                    " its own"
                )
        self.recipes |= {name: dict(now) for name, now in recipes.items()}

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
        known = {"rows": self.rows, "runs": self.runs, "recipes": self.recipes}
        files.write_json(self.path, known)
