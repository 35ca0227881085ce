"""Finds which data sets are on the machine, and loads one without downloading it."""

import dataclasses
import os
from pathlib import Path

from cnnjax.data.cache import Copy
from cnnjax.data.dataset import Dataset
from cnnjax.data.load import EMBEDDED, Source, load_source
from cnnjax.data.sources import cifar
from cnnjax.data.sources.published import COUNTS, SETS, Published
from cnnjax.data.sources.tfds import BY_TFDS
from cnnjax.runtime import backend


@dataclasses.dataclass(frozen=True)
class Found:
    """A prepared data set or an archive on the machine.

    Attributes:
        name: name of the set or the archive.
        kind: "archive", or the form of the set, such as "prepared by TFDS".
        path: its folder or file.
        size: bytes on disk.
    """

    name: str
    kind: str
    path: Path
    size: int


def roots(directory: str) -> list[Path]:
    """Returns the folders in which data are looked for, without duplicates.

    They are `directory` (unless it is ""), TFDS_DATA_DIR, `~/tensorflow_datasets`, and
    those of the other usual places that exist.
    """
    own = backend.home() / "tensorflow_datasets"
    given = (directory, os.environ.get("TFDS_DATA_DIR", ""), own)
    paths = [Path(os.path.expanduser(path)).resolve() for path in given if path]
    usual = [path.resolve() for path in cifar.usual_places() if os.path.isdir(path)]
    return list(dict.fromkeys([*paths, *usual]))


def find(root: Path) -> list[Found]:
    """Returns the data sets and archives in a data folder, if it exists."""
    found = []
    for pattern in ("*/*/features.json", "*/*/*/features.json"):
        for file in root.glob(pattern):
            *names, version = file.parent.relative_to(root).parts
            size = sum(
                path.stat().st_size for path in file.parent.iterdir() if path.exists()
            )
            name = f"{'/'.join(names)}:{version}"
            found.append(Found(name, BY_TFDS, file.parent, size))
    for published in SETS.values():
        for copy in cifar.copies(root, published):
            if copy.form == cifar.PARQUET and not _is_of(copy, published):
                continue
            size = sum(path.stat().st_size for path in copy.files if path.exists())
            found.append(Found(published.name, copy.form, copy.path, size))
    for path in (root / "downloads" / "manual").glob("*"):
        if path.is_file():
            found.append(Found(path.name, "archive", path, path.stat().st_size))
    return sorted(found, key=lambda one: one.name)


def load(name: str, directory: str) -> Dataset:
    """Loads a data set without downloading anything.

    Args:
        name: name of an embedded or a TFDS set; "" to load what `directory` names.
        directory: TFDS's data folder, or without a name a picture folder or an `.npz`.

    Raises:
        InputError: the data set is missing or of another form.
    """
    if name in EMBEDDED and not directory:
        source = Source("embedded", name)
    elif not name and directory.lower().endswith(".npz"):
        source = Source("npz", file=directory)
    else:
        kind = "tfds" if name else "folder"
        source = Source(kind, name, directory, download=False)
    return load_source(source, default_name=name, stand_in="")


def _is_of(copy: Copy, published: Published) -> bool:
    """Tells whether Parquet files, whose names any project may use, are of a set."""
    try:
        from pyarrow.parquet import read_metadata
    except ImportError:
        return True  # it cannot be asked, nor read
    try:
        about = [read_metadata(path) for path in copy.files]
    except (OSError, ValueError):  # pyarrow's errors are of these kinds
        return False
    rows = sum(one.num_rows for one in about)
    names = about[0].schema.to_arrow_schema().names
    return rows == sum(COUNTS.values()) and published.label_column in names
