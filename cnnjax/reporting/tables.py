"""What a network said of pictures, as a table, as JSON and as pictures."""

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

from cnnjax.data import inspection
from cnnjax.data.dataset import Dataset
from cnnjax.data.inspection import Found
from cnnjax.workdir import files

# Of a saliency picture: small pixels are enlarged to about so many, and not smoothed.
SALIENCY_SIDE = 256


def top(
    probabilities: np.ndarray, class_names: Sequence[str], k: int
) -> list[dict[str, Any]]:
    """Returns the `k` likeliest classes of a picture, the likeliest first.

    Args:
        probabilities: float32 [num_classes].
        class_names: one a class.
        k: at least 1.
    """
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [
        {"class": class_names[i], "probability": float(probabilities[i])} for i in order
    ]


def print_table(
    about: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]
) -> None:
    """Prints a row for each class of each picture.

    Args:
        about: what predicted them; see `experiments/predict.py`.
        pictures: each with `file` and `top`.
    """
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for picture in pictures:
        for rank, row in enumerate(picture["top"]):
            # As text, because brackets in a name would be read as a style.
            name = Text(picture["file"] if rank == 0 else "")
            table.add_row(name, Text(row["class"]), f"{row['probability']:.4f}")
        table.add_section()
    Console().print(table)


def print_json(about: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]) -> None:
    """Prints one JSON object, `about` with `pictures` in it."""
    print(json.dumps({**about, "pictures": list(pictures)}, indent=2))


def save_saliencies(
    directory: Path,
    pictures: Sequence[dict[str, Any]],
    images: np.ndarray,
    saliencies: np.ndarray,
) -> None:
    """Writes a PNG for each picture: what the network was given, and its saliency.

    Args:
        directory: where; made if it does not exist.
        pictures: each with `file`; `saliency`, the name of its PNG, is added.
        images: uint8 [n, side, side, 1 or 3].
        saliencies: float [n, side, side], at least 0; each one's largest becomes white.

    Raises:
        InputError: there can be no such folder.
    """
    with files.writing(directory, "saliency"):
        directory.mkdir(parents=True, exist_ok=True)
        for i, (picture, image, saliency) in enumerate(
            zip(pictures, images, saliencies, strict=True), start=1
        ):
            # Numbered, as pictures of several folders may have one name; and cut, as
            # with the number it may be longer than a name can be, 255 bytes.
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


def print_found(found: Sequence[Found]) -> None:
    """Prints a table of what is on the machine, the embedded sets last."""
    table = _table("on this machine", "set", "what", "size", "where")
    for one in found:
        size = f"{one.size / 1e6:.1f} MB"
        table.add_row(Text(one.name), one.kind, size, Text(str(one.path)))
    for name in inspection.EMBEDDED:
        table.add_row(name, "embedded", "", "in this program")
    Console().print(table)


def print_dataset(dataset: Dataset) -> None:
    """Prints counts per class, mean and deviation per channel, and repeated pictures.

    Args:
        dataset: any.
    """
    console = Console()
    height, width, channels = dataset.image_shape
    title = f"{dataset.name} {dataset.version}, {height}x{width}x{channels}"
    table = _table(title, "class", "train", "test")
    splits = (dataset.train, dataset.test)
    counts = [
        np.bincount(split.labels, minlength=dataset.num_classes) for split in splits
    ]
    for name, *row in zip(dataset.class_names, *counts, strict=True):
        table.add_row(Text(name), *[f"{count:,}" for count in row])
    table.add_row("all", *[f"{count.sum():,}" for count in counts], style="bold")
    console.print(table)

    table = _table("pixels, 0 to 255", "channel", "train", "test")
    figures = [inspection.mean_and_deviation(split.images) for split in splits]
    for channel in range(channels):
        table.add_row(
            str(channel), *[f"{m[channel]:.2f} ± {d[channel]:.2f}" for m, d in figures]
        )
    console.print(table)

    found = inspection.repeats(*splits)
    print(
        f"repeated pictures: {found.within_train} within train, {found.within_test}"
        f" within test, {found.across} of test are in train"
        f" ({found.across_mislabelled} of them under another label)"
    )
    print(f"fingerprint: {dataset.fingerprint}")


def _table(title: str, first: str, *others: str) -> Table:
    # Names as text: brackets in them would be read as a style.
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    table.add_column(first, overflow="fold")
    for name in others:
        right = name in ("train", "test", "size")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table
