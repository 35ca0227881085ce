"""Reads picture files as arrays, in the same way for training and for prediction."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cnnjax.errors import InputError, one_line

# Decoding takes 4 bytes per pixel; more pixels are useless in a picture of 32x32.
MAX_PIXELS = 64 * 2**20

# Smallest side in pixels of a picture to predict; smaller ones show nothing.
MIN_SIDE = 8

# Formats that only hold pictures. (For PostScript, Pillow would run a program.)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# Grey with 16 bits. (Of 16-bit colours, Pillow itself keeps the upper 8 bits.)
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
GREY_MODES = ("1", "L", "LA", *SIXTEEN_BIT_MODES)
# Deeper modes do not define which value is white; only in PPM, mode I has 16 bits.
DEEP_MODES = ("I", "F")


def read_picture(path: Path, size: int, mode: str) -> np.ndarray:
    """Reads the central square of a picture, scaled to `size` pixels (Lanczos).

    The picture is first rotated according to its EXIF orientation and converted to
    `mode`; transparency is dropped, and 16 bits are scaled to 8.

    Args:
        path: a file in one of `FORMATS` with at most 16 bits per channel; of an
            animation, the first frame is read.
        size: side of the result in pixels.
        mode: "RGB" or "L" (grey).

    Returns:
        uint8 [size, size, 3] or [size, size, 1], in [0, 255].

    Raises:
        InputError: the file is missing, truncated or no picture, has more than 16 bits
            per channel or more than `MAX_PIXELS` pixels.
    """
    with _open(path) as image:
        try:
            if image.mode == "P":
                # Pillow warns about transparency in a palette unless it becomes RGBA.
                image = image.convert("RGBA")
            sixteen_bit = _is_sixteen_bit(image)
            image = ImageOps.exif_transpose(image)
            if sixteen_bit:
                # Pillow would clip the values; here 65535 becomes 255.
                deep = np.asarray(image).astype(np.uint32)
                image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
            image = image.convert(mode)
            # Only the square is resized, because scaling the whole of a long, thin
            # picture could take any amount of memory.
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            square = image.resize(
                (size, size),
                Image.Resampling.LANCZOS,
                box=(left, top, left + side, top + side),
            )
        # Each of Pillow's decoders raises its own exceptions for a broken file.
        except Exception as error:
            raise _not_a_picture(path, error) from error
    return np.asarray(square, np.uint8).reshape(size, size, -1)


def _open(path: Path) -> Image.Image:
    """Opens a picture and checks its size before anything is decoded."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about a large picture and refuses an even larger one; here
            # both are refused.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except Exception as error:
        raise _not_a_picture(path, error) from error
    pixels = image.size[0] * image.size[1]
    deep = image.mode in DEEP_MODES and not _is_sixteen_bit(image)
    if pixels > MAX_PIXELS or deep:
        got = f"{image.size[0]}x{image.size[1]} pixels, mode {image.mode}"
        image.close()
        raise InputError(
            f"{path} has {got}; at most {MAX_PIXELS / 2**20:.0f} megapixels of 16 "
            "bits a channel are read; convert it or take it out"
        )
    return image


def is_grey(path: Path) -> bool:
    """Tells from its header whether a picture is greyscale.

    Raises:
        InputError: as for `read_picture`, as far as the header shows it.
    """
    with _open(path) as image:
        return image.mode in GREY_MODES or _is_sixteen_bit(image)


def _is_sixteen_bit(image: Image.Image) -> bool:
    of_ppm = image.mode == "I" and image.format == "PPM"
    return of_ppm or image.mode in SIXTEEN_BIT_MODES


def read_all(
    named: Sequence[Path], size: int, mode: str
) -> tuple[list[Path], np.ndarray, list[InputError]]:
    """Reads every picture that can be read, and returns errors for the others.

    Args:
        named: files, and folders whose files are all read, sorted by name, except
            hidden ones.
        size: see `read_picture`.
        mode: see `read_picture`.

    Returns:
        the files that were read; their pictures, uint8 [n, size, size, channels]; and
        an error for each file that is no picture or has a side below `MIN_SIDE` pixels,
        and for each folder without files.
    """
    read, images, problems = [], [], []
    for name in named:
        # Path.is_dir would raise for a name that is too long.
        files = _files_in(name) if os.path.isdir(name) else [name]
        if not files:
            problems.append(
                InputError(f"{name} holds no file; need pictures; name another folder")
            )
        for path in files:
            try:
                _check_not_tiny(path)
                images.append(read_picture(path, size, mode))
                read.append(path)
            except InputError as error:
                problems.append(error)
    channels = len(Image.new(mode, (1, 1)).getbands())
    nothing = np.zeros((0, size, size, channels), np.uint8)
    return read, np.stack(images) if images else nothing, problems


def _check_not_tiny(path: Path) -> None:
    with _open(path) as image:
        width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{path} has {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are"
            " needed to see anything; take a larger picture"
        )


def _files_in(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*")):
        names = path.relative_to(folder).parts
        if path.is_file() and not any(name.startswith(".") for name in names):
            found.append(path)
    return found


def _not_a_picture(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read as a picture ({one_line(error)}); a whole picture file"
        " is needed; replace it or take it out"
    )
