"""Finds what TFDS has prepared, by its files alone."""

import re
from pathlib import Path

from cnnjax.errors import InputError

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)", re.ASCII)
_METADATA = ("features.json", "dataset_info.json")


def find_prepared(root: Path, base: str, config: str, version: str) -> Path | None:
    """Finds `root/base[/config]/version`, by its files alone.

    Args:
        root: TFDS's data dir.
        base: name of the set.
        config: of its configuration; "" where it has one or none.
        version: "" for the highest one.

    Returns:
        the folder with the prepared data, or None.

    Raises:
        InputError: several configurations are there and none is named, or what is
            there is not whole.
    """
    folder = root / base / config
    versions = _versions(folder, version)
    if not versions and not config:
        configs = {
            path.name: found
            for path in _folders(folder)
            if not _VERSION.fullmatch(path.name) and (found := _versions(path, version))
        }
        if len(configs) > 1:
            raise InputError(
                f"{folder} holds the configurations {', '.join(sorted(configs))}; one "
                f"is needed; set data.name to {base}/CONFIG"
            )
        versions = next(iter(configs.values()), [])
    if not versions:
        return None
    for file in _METADATA:
        if not (versions[-1] / file).is_file():
            raise InputError(
                f"{versions[-1]} has no {file}; a whole prepared set is needed; remove "
                "that folder or copy it again"
            )
    return versions[-1]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed ({error.strerror}); it must be readable; "
            "change its permissions"
        ) from error


def _versions(folder: Path, wanted: str) -> list[Path]:
    """Returns the version folders that hold anything, the highest last."""
    found = []
    for path in _folders(folder):
        match = _VERSION.fullmatch(path.name)
        if match and wanted in ("", path.name) and any(path.iterdir()):
            found.append((tuple(int(part) for part in match.groups()), path))
    return [path for _, path in sorted(found)]
