"""Reads picture files as arrays, in the same way for training and for prediction."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from cnnjax.errors import InputError, one_line

# Decoding takes 4 bytes per pixel; more pixels are useless in a picture of 32x32.
MAX_PIXELS = 64 * 2**20

# Smallest side in pixels of a picture; smaller ones show nothing.
MIN_SIDE = 8

# A JPEG is decoded to this many times the wanted side or more, which takes a tenth of
# the time of its full size. The values differ by at most 8 of 255, and 1 in the mean.
REDUCED = 8

# Pillow decodes outside of Python's lock. More threads would take too much memory.
MAX_THREADS = 8

# Formats that only hold pictures. (For PostScript, Pillow would run a program.)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# What systems leave beside pictures, in small letters; as are all hidden files.
LEFT_BEHIND = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "lost+found"),
}

# Grey with 16 bits. (Of 16-bit colours, Pillow itself keeps the upper 8 bits.)
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", *SIXTEEN_BIT_MODES)
# Deeper modes do not define which value is white; only in PPM, mode I has 16 bits.
# Pillow has no conversion of LAB to grey.
REFUSED_MODES = ("I", "F", "LAB")
# By what the transparent value of a PNG is multiplied, as the pixels are by Pillow.
PNG_SCALE = {"L;2": 85, "L;4": 17}

S = TypeVar("S")
T = TypeVar("T")


def read_picture(path: Path, size: int, mode: str) -> np.ndarray:
    """Reads the central square of a picture, scaled to `size` pixels (Lanczos).

    The picture is first rotated according to its EXIF orientation and converted to
    `mode`; what is transparent in it lies over white, and 16 bits are scaled to 8. A
    JPEG of 2 * `REDUCED` * `size` pixels or more a side is decoded at a half, quarter
    or eighth of its size.

    Args:
        path: a file in one of `FORMATS` with at most 16 bits per channel; of an
            animation, the first frame is read.
        size: side of the result in pixels.
        mode: "RGB" or "L" (grey).

    Returns:
        uint8 [size, size, 3] or [size, size, 1], in [0, 255].

    Raises:
        InputError: the file is missing, truncated or no picture, has more than 16 bits
            per channel, more than `MAX_PIXELS` pixels or a side below `MIN_SIDE`.
    """
    with _open(path) as image:
        try:
            whole = image.size
            draft = image.draft(None, (REDUCED * size, REDUCED * size))
            reduced = draft if image.size != whole else None
            flat = _flatten(image, mode, upright=not reduced)
            width, height = reduced[1][2:] if reduced else flat.size
            # Only the square is resized, because scaling the whole of a long, thin
            # picture could take any amount of memory.
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            square = flat.resize(
                (size, size),
                Image.Resampling.LANCZOS,
                box=(left, top, left + side, top + side),
            )
            if reduced:
                # Its last row and column may be of part of a pixel, where they are now.
                square = _upright(square)
        # Each of Pillow's decoders raises its own exceptions for a broken file.
        except Exception as error:
            raise _not_a_picture(path, error) from error
    return np.asarray(square, np.uint8).reshape(size, size, -1)


def _upright(image: Image.Image) -> Image.Image:
    """Returns a picture turned as its EXIF says, whatever else that says."""
    with _opening, warnings.catch_warnings(action="ignore"):  # of broken tags
        image.getexif()  # which keeps it
    # Pillow would write all of it anew, and fails at what is not as it should be.
    for name in ("exif", "Raw profile type exif"):
        image.info.pop(name, None)
    return ImageOps.exif_transpose(image)


def _flatten(image: ImageFile, mode: str, *, upright: bool) -> Image.Image:
    """Returns a picture in `mode`, of 8 bits and over white; turned if `upright`."""
    clear = _transparent_value(image)
    most, white_is_zero = _sixteen_bits(image)
    turned: Image.Image = image
    if image.mode in ("P", "PA", "RGBa"):
        # Pillow warns about transparency in a palette unless it becomes RGBA.
        turned = image.convert("RGBA")
    elif image.mode == "La":
        turned = image.convert("LA")
    if upright:
        turned = _upright(turned)
    hidden = None
    if clear is not None:
        hidden = np.asarray(turned) == clear
        hidden = hidden.all(axis=-1) if hidden.ndim == 3 else hidden
    if most:
        # Pillow would clip the values; here the highest becomes 255.
        deep = np.asarray(turned).astype(np.uint32)
        deep = most - deep if white_is_zero else deep
        turned = Image.fromarray(((255 * deep + most // 2) // most).astype(np.uint8))
    flat = turned.convert(mode)
    if "A" in turned.getbands():
        alpha = turned.getchannel("A")
        if alpha.getextrema() != (255, 255):
            colours, flat = flat, Image.new(mode, flat.size, "white")
            flat.paste(colours, mask=alpha)
    elif hidden is not None and hidden.any():
        flat.paste("white", mask=Image.fromarray(hidden))
    return flat


def _transparent_value(image: ImageFile) -> Any:
    """Returns which value is transparent in a picture without alpha, or None."""
    value = image.info.get("transparency")
    if value is None or image.mode not in ("1", "L", "RGB", *SIXTEEN_BIT_MODES):
        return None
    if image.mode == "1":
        return bool(value)
    return value if image.mode == "RGB" else value * PNG_SCALE.get(_layout(image), 1)


def _layout(image: ImageFile) -> str:
    """Returns Pillow's word for how pixels lie in a file that is not loaded yet."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _sixteen_bits(image: ImageFile) -> tuple[int, bool]:
    """Returns the highest value of grey of more than 8 bits, and whether it is black.

    The value is 0 where there are 8 bits or fewer, or colours.
    """
    if not _is_sixteen_bit(image):
        return 0, False
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 2**16 - 1, False
    tags = image.tag_v2
    (bits,) = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    # Pillow inverts these itself, but not where there are 16 bits.
    return 2**bits - 1, tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


# Pillow's warning about large pictures is an error while a file is opened, and others
# are not shown; by one thread at a time, because Python's filters are of all threads.
_opening = threading.Lock()


def _open(path: Path) -> ImageFile:
    """Opens a picture and checks its size before anything is decoded."""
    try:
        with _opening, warnings.catch_warnings(action="ignore"):  # as in `_upright`
            # Pillow warns about a large picture and refuses an even larger one; here
            # both are refused.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        problem = _unknown_values(image)
    except Exception as error:
        raise _not_a_picture(path, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS or problem:
        image.close()
        raise InputError(
            f"{path} has {width}x{height} pixels, {problem or f'mode {image.mode}'}; at"
            f" most {MAX_PIXELS / 2**20:.0f} megapixels of 16 bits a channel are read;"
            " convert it or take it out"
        )
    if min(width, height) < MIN_SIDE:
        image.close()
        raise InputError(
            f"{path} has {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are"
            " needed to see anything; take a larger picture"
        )
    return image


def _unknown_values(image: ImageFile) -> str:
    """Returns why Pillow's values would not be those of the picture, or ""."""
    if image.mode in REFUSED_MODES and not _is_sixteen_bit(image):
        return f"mode {image.mode}"
    keyed = image.mode == "RGB" and "transparency" in image.info
    if keyed and _layout(image).startswith("RGB;16"):
        return "mode RGB with a transparent colour of 16 bits"
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()):
            return "signed values"
        # Of blocks of several pixels, which Pillow would take for one each.
        subsampled = image.mode == "YCbCr" and tags.get(530, (2, 2)) != (1, 1)
        if subsampled and tags.get(TiffImagePlugin.COMPRESSION) not in (6, 7):
            return "subsampled colours without JPEG"
    return ""


def is_grey(path: Path) -> bool:
    """Tells from its header whether a picture is greyscale.

    Raises:
        InputError: as for `read_picture`, as far as the header shows it.
    """
    with _open(path) as image:
        return image.mode in GREY_MODES or _is_sixteen_bit(image)


def _is_sixteen_bit(image: ImageFile) -> bool:
    of_ppm = image.mode == "I" and image.format == "PPM"
    return of_ppm or image.mode in SIXTEEN_BIT_MODES


def each(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Yields `function(item)` of each item in order, computed in several threads.

    The first error is raised, and the items after it are left.
    """
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


class PassedOverError(InputError):
    """A file that lies among pictures and is none; the message is its path."""


def read_all(
    named: Sequence[Path], size: int, mode: str
) -> tuple[list[Path], np.ndarray, list[InputError]]:
    """Reads every picture that can be read, and returns errors for the others.

    Args:
        named: files, and folders whose files are all read, sorted by name, except
            hidden ones and those that systems leave behind.
        size: see `read_picture`.
        mode: see `read_picture`.

    Returns:
        the files that were read; their pictures, uint8 [n, size, size, channels]; and
        an error for each file that cannot be read as a picture, and for each folder
        that cannot be listed or holds no files. It is a `PassedOverError` where a file
        of a folder has neither the content nor the suffix of a picture.
    """
    known = Image.registered_extensions()
    suffixes = {suffix for suffix, kind in known.items() if kind in FORMATS}
    suffixes |= {".heic", ".heif", ".avif", ".jxl"}  # pictures too, if not read here
    listed: list[Path | InputError] = []
    for name in named:
        # Path.is_dir would raise for a name that is too long.
        found, unlisted = files_in(name) if os.path.isdir(name) else ([name], [])
        listed += [*found, *unlisted]
        if not found and not unlisted:
            listed.append(
                InputError(f"{name} holds no file; need pictures; name another folder")
            )

    def attempt(path: Path | InputError) -> np.ndarray | InputError:
        try:
            return read_picture(path, size, mode) if isinstance(path, Path) else path
        except InputError as error:
            return error

    read: list[Path] = []
    images: list[np.ndarray] = []
    problems: list[InputError] = []
    for path, result in zip(listed, each(attempt, listed), strict=True):
        if isinstance(result, InputError):
            if (
                isinstance(path, Path)
                and path not in named
                and path.suffix.lower() not in suffixes
                and isinstance(result.__cause__, UnidentifiedImageError)
            ):
                result = PassedOverError(str(path))
            problems.append(result)
        elif isinstance(path, Path):
            read.append(path)
            images.append(result)
    channels = len(Image.new(mode, (1, 1)).getbands())
    nothing = np.zeros((0, size, size, channels), np.uint8)
    return read, np.stack(images) if images else nothing, problems


def is_left_behind(name: str) -> bool:
    """Returns whether a file or folder of that name is hidden or a system's own."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def files_in(folder: Path) -> tuple[list[Path], list[InputError]]:
    """Returns the files below a folder, sorted, and an error for each unlisted folder.

    Links are followed, each folder once, so that a circle of them ends.
    """
    found, problems = [], []
    seen = set()

    def refuse(error: OSError) -> None:
        problems.append(not_listed(Path(error.filename), error))

    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        about = os.stat(here)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not is_left_behind(name))
        for path in (Path(here, name) for name in names if not is_left_behind(name)):
            # A broken link is named later; reading a pipe would never end.
            if os.path.isfile(path) or os.path.islink(path):
                found.append(path)
    return sorted(found), problems


def not_listed(folder: Path, error: OSError) -> InputError:
    """Returns the error for a folder that cannot be listed."""
    return InputError(
        f"{folder} cannot be listed ({error.strerror}); it must be readable; "
        "change its permissions"
    )


def _not_a_picture(path: Path, error: Exception) -> InputError:
    reason = one_line(error)
    if isinstance(error, UnidentifiedImageError):
        reason = f"it is empty, damaged or none of {', '.join(FORMATS)}"
    return InputError(
        f"{path} cannot be read as a picture ({reason}); a whole picture file"
        " is needed; convert it, replace it or take it out"
    )
