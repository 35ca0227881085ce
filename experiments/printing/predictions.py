"""Output of `predict.py`: a table, JSON and saliency pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnjax.workdir import files

# Saliency pictures are enlarged to about this side in pixels, without smoothing.
SALIENCY_SIDE = 256


def top(
    probabilities: np.ndarray, class_names: Sequence[str], k: int
) -> list[dict[str, Any]]:
    """Returns the `k` most probable classes of a picture, the most probable first.

    `probabilities` is float32 [num_classes].
    """
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [
        {"class": class_names[i], "probability": float(probabilities[i])} for i in order
    ]


def print_table(
    about: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]
) -> None:
    """Prints a table with one row for each class of each picture.

    Args:
        about: facts about the network to print first, such as its checkpoint.
        pictures: each with `file` and `top`.
    """
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for picture in pictures:
        for rank, row in enumerate(picture["top"]):
            # `Text`, because rich would read brackets in a name as a style.
            name = Text(picture["file"] if rank == 0 else "")
            table.add_row(name, Text(row["class"]), f"{row['probability']:.4f}")
        table.add_section()
    Console().print(table)


def print_json(about: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]) -> None:
    """Prints one JSON object: `about` with a further key `pictures`."""
    print(json.dumps({**about, "pictures": list(pictures)}, indent=2))


def save_saliencies(
    directory: Path,
    pictures: Sequence[dict[str, Any]],
    images: np.ndarray,
    saliencies: np.ndarray,
) -> None:
    """Writes a PNG for each picture: the network's input beside its saliency.

    Args:
        directory: folder for the files; created if it does not exist.
        pictures: each with `file`; the name of its PNG is added as `saliency`.
        images: uint8 [n, side, side, 1 or 3].
        saliencies: float [n, side, side], at least 0; the largest of each is white.

    Raises:
        InputError: the folder cannot be created or written to.
    """
    with files.writing(directory, "saliency"):
        directory.mkdir(parents=True, exist_ok=True)
        for i, (picture, image, saliency) in enumerate(
            zip(pictures, images, saliencies, strict=True), start=1
        ):
            # Numbered, because pictures from several folders may have the same name,
            # and cut, because a file name has at most 255 bytes.
            stem = Path(picture["file"]).stem[:60]
            path = directory / f"{i:04d}-{stem}.png"
            _side_by_side(image, saliency).save(path)
            picture["saliency"] = str(path)


def _side_by_side(image: np.ndarray, saliency: np.ndarray) -> Image.Image:
    scale = 255 / max(float(saliency.max()), float(np.finfo(np.float32).tiny))
    heat = np.rint(saliency.astype(np.float64) * scale).astype(np.uint8)
    shape = (*heat.shape, 3)
    both = (np.broadcast_to(image, shape), np.broadcast_to(heat[..., None], shape))
    factor = max(1, round(SALIENCY_SIDE / len(heat)))
    return Image.fromarray(np.hstack(both).repeat(factor, axis=0).repeat(factor, 1))
