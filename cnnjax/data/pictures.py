"""How one picture file becomes an array: the same for training and for predicting."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cnnjax.errors import InputError

# Decoding takes 4 bytes a pixel; a picture that is to become 32x32 has no use for more.
MAX_PIXELS = 64 * 2**20

# Formats that are pictures and nothing more; Pillow runs a program for PostScript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

GREY_MODES = ("1", "L", "LA")
# Sixteen bits and more a channel: Pillow would clip them, not scale them.
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def read_picture(path: Path, size: int, mode: str) -> np.ndarray:
    """Reads a picture as a square: turned upright, scaled, and its middle cut out.

    It is turned as its EXIF orientation says, converted to `mode` (transparency is
    dropped), scaled (Lanczos) so that its shorter side is `size`, the longer one in
    proportion, and the central square is taken.

    Args:
        path: a file of one of `FORMATS`, 8 bits a channel.
        size: of the result, in pixels.
        mode: "RGB" or "L" (grey).

    Returns:
        uint8 [size, size, 3] or [size, size, 1], in [0, 255].

    Raises:
        InputError: the file is missing, no picture, truncated, deeper than 8 bits, or
            has more than `MAX_PIXELS` pixels.
    """
    with _open(path) as image:
        try:
            if image.mode == "P":
                # By way of RGBA: Pillow warns of transparency in a palette otherwise.
                image = image.convert("RGBA")
            image = ImageOps.exif_transpose(image).convert(mode)
            # The square is resized straight out of the picture: scaling all of a
            # long, thin one would take memory without bound.
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            square = image.resize(
                (size, size),
                Image.Resampling.LANCZOS,
                box=(left, top, left + side, top + side),
            )
        # Each of Pillow's decoders raises its own kind of error for a broken file.
        except Exception as error:
            raise _not_a_picture(path, error) from error
    return np.asarray(square, np.uint8).reshape(size, size, -1)


def _open(path: Path) -> Image.Image:
    """Reads the header and checks the size, before anything is decoded."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of a large picture and refuses a larger one; both are
            # refused here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except Exception as error:
        raise _not_a_picture(path, error) from error
    pixels = image.size[0] * image.size[1]
    if pixels > MAX_PIXELS or image.mode in DEEP_MODES:
        got = f"{image.size[0]}x{image.size[1]} pixels, mode {image.mode}"
        image.close()
        raise InputError(
            f"{path} has {got}; at most {MAX_PIXELS / 2**20:.0f} megapixels of 8 bits "
            "a channel are read; convert it or take it out"
        )
    return image


def is_grey(path: Path) -> bool:
    """Says from its header whether a picture is greyscale.

    Raises:
        InputError: as `read_picture`, as far as the header tells.
    """
    with _open(path) as image:
        return image.mode in GREY_MODES


def _not_a_picture(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{path} cannot be read as a picture ({reason}); a whole picture file is "
        "needed; replace it or take it out"
    )
