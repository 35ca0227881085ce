"""Reads pictures from Parquet files as the Hugging Face hub has them."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnjax.errors import InputError, MissingPackageError, one_line

IMAGE_COLUMNS = ("img", "image")


def find(place: Path, subfolder: str) -> Mapping[str, list[Path]] | None:
    """Returns the Parquet files of each split, or None without any training file.

    They are `train-*.parquet` and `test-*.parquet` in the folder `place`, or in its
    subfolder of the given name.
    """
    for folder in (place, place / subfolder):
        files = {
            split: sorted(folder.glob(f"{split}-*.parquet"))
            for split in ("train", "test")
        }
        if files["train"]:
            return files
    return None


def read(files: list[Path], label_column: str, side: int) -> tuple[Any, Any]:
    """Reads the rows of a split's files, one file after the other.

    Args:
        files: with a column `img` or `image`, encoded RGB pictures of `side` x `side`
            pixels (PNG, so that they are exact), and one of labels.
        label_column: name of the labels' column, integers.
        side: height and width of every picture.

    Returns:
        images uint8 [n, side, side, 3], and labels int64 [n].

    Raises:
        MissingPackageError: pyarrow is not installed.
        InputError: a file is damaged or has other columns or pictures.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError(
            "reading Parquet files needs pyarrow, which is not installed;"
            " pip install 'cnnjax[parquet]'"
        ) from error
    images, labels = [], []
    for path in files:
        try:
            has = pyarrow.parquet.read_schema(path).names
            column = next((name for name in IMAGE_COLUMNS if name in has), "")
            if not column or label_column not in has:
                raise InputError(
                    f"{path} has the columns {', '.join(has)};"
                    f" {' or '.join(IMAGE_COLUMNS)} and {label_column} are needed; take"
                    " the files of the data set"
                )
            table = pyarrow.parquet.read_table(path, columns=[column, label_column])
            labels.append(_labels(table[label_column].to_numpy()))
            with warnings.catch_warnings():
                # Its size is refused anyway.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                images += [_decode(cell, side) for cell in table[column].to_pylist()]
        except InputError:
            raise
        # pyarrow and Pillow raise many kinds of errors for a damaged file.
        except Exception as error:
            raise InputError(
                f"{path} cannot be read ({one_line(error, 200)}); Parquet with a"
                f" picture and {label_column} in each row is needed; download it again"
            ) from error
    if not images:
        raise InputError(f"{files[0]} has no rows, need some; download it again")
    return np.stack(images), np.concatenate(labels)


def _labels(values: np.ndarray) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer):  # gaps make integers floats
        raise ValueError(f"the labels are {values.dtype}, not integers in each row")
    return values.astype(np.int64)


def _decode(cell: Any, side: int) -> np.ndarray:
    encoded = cell["bytes"] if isinstance(cell, dict) else cell
    if not encoded:
        raise ValueError("a picture is missing")
    with Image.open(io.BytesIO(encoded), formats=("PNG",)) as picture:
        if picture.size != (side, side) or picture.mode != "RGB":
            raise ValueError(f"a picture is {picture.mode}, {picture.size}")
        return np.asarray(picture)
