"""The ledger `claims.json`: all results so far, saved after every run and row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax.errors import InputError
from cnnjax.workdir import files

FILE = "claims.json"
DEFAULT = "the default"  # of a field that is not recorded


class Ledger:
    """Finished runs and rows by key; what the ledger holds is not measured again."""

    def __init__(self, folder: Path) -> None:
        """Reads `folder / FILE` if it exists; the first write creates the folder.

        Raises:
            InputError: the file is not valid JSON.
        """
        self.path = folder / FILE
        found = files.read_json(self.path) if self.path.exists() else {}
        self.recipes: dict[str, Any] = found.get("recipes", {})
        self.runs: dict[str, Any] = found.get("runs", {})
        self.rows: dict[str, Any] = found.get("rows", {})

    def keep_recipes(self, recipes: Mapping[str, Mapping[str, Any]]) -> None:
        """Records the recipes of the runs, whose keys name only changes to a recipe.

        Args:
            recipes: name of a file in `experiments/configs` -> its flat fields, in the
                form that JSON returns, as `lab.lasting` returns them: without those
                that stand at a default which older versions did not know.

        Raises:
            InputError: a recipe has changed since its runs were measured.
        """
        for name, now in recipes.items():
            then = self.recipes.get(name, now)
            both = {
                field: (now.get(field, DEFAULT), then.get(field, DEFAULT))
                for field in sorted(now.keys() | then.keys())
            }
            changed = [
                f"{field}={new!r} (was {old!r})"
                for field, (new, old) in both.items()
                if new != old
            ]
            if changed:
                raise InputError(
                    f"configs/{name}.py now has {', '.join(changed)}, and the runs in"
                    f" {self.path} are of what it was: give --out=DIR for a table of"
                    " its own"
                )
        self.recipes |= {name: dict(now) for name, now in recipes.items()}

    def put_run(self, key: str, figures: Mapping[str, Any]) -> None:
        """Stores the figures of a run."""
        self.runs[key] = dict(figures)
        self._write()

    def put_row(self, key: str, row: Mapping[str, Any]) -> None:
        """Stores a finished row."""
        self.rows[key] = dict(row)
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = {"rows": self.rows, "runs": self.runs, "recipes": self.recipes}
        files.write_json(self.path, known)
