"""Draws the first pictures of each class of a data set, a row a class."""

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from cnnjax.data.dataset import Dataset
from cnnjax.data.inspection import grid
from cnnjax.errors import InputError
from cnnjax.reporting.plots import text

PICTURES_A_CLASS = 10

# About the side of a picture in pixels, and the size of the names beside them.
SIDE, FONT_SIZE = 64, 16


def drawn(dataset: Dataset) -> Image.Image:
    """Returns `rows_of_classes` enlarged, with the name of each row's class.

    What is transparent lies over white.

    Raises:
        InputError: see `rows_of_classes`.
    """
    shown = rows_of_classes(dataset)
    factor = max(1, round(SIDE / dataset.image_shape[0]))
    large = shown.repeat(factor, axis=0).repeat(factor, axis=1)
    rows = Image.fromarray(large.squeeze(-1) if large.shape[-1] == 1 else large)
    rows = rows.convert("RGBA")
    font = ImageFont.truetype(findfont("DejaVu Sans"), FONT_SIZE)
    names = [text(name, 24) for name in dataset.class_names]
    margin = FONT_SIZE + round(max(map(font.getlength, names)))
    page = Image.new("RGB", (margin + rows.width, rows.height), "white")
    page.paste(rows, (margin, 0), mask=rows)
    pen, pitch = ImageDraw.Draw(page), factor * (dataset.image_shape[0] + 1)
    for i, name in enumerate(names):
        middle = i * pitch + factor * dataset.image_shape[0] / 2
        pen.text((FONT_SIZE / 2, middle), name, "black", font, anchor="lm")
    return page


def rows_of_classes(dataset: Dataset) -> np.ndarray:
    """Returns the first ten training pictures of each class, one row per class.

    Returns:
        one picture, uint8 [height, width, channels].

    Raises:
        InputError: the pictures do not have 1, 3 or 4 channels, as a PNG needs.
    """
    height, width, channels = dataset.image_shape
    if channels not in (1, 3, 4):
        raise InputError(
            f"{dataset.name} has pictures of {channels} channels; a PNG has 1, 3 or 4;"
            " leave --grid out"
        )
    shape = (dataset.num_classes, PICTURES_A_CLASS, height, width, channels)
    rows = np.zeros(shape, np.uint8)
    for label, row in enumerate(rows):
        these = np.flatnonzero(dataset.train.labels == label)[:PICTURES_A_CLASS]
        row[: len(these)] = dataset.train.images[these]
    return grid(rows.reshape(-1, height, width, channels), PICTURES_A_CLASS)
