"""Random numbers and distorted pictures in NumPy: what the pipeline has to make."""

import zlib
from collections.abc import Collection
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Key = tuple[Array, Array]  # uint32, of any one shape: a key for each example

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: Key, high: Any, low: Any) -> Key:
    """Returns Threefry-2x32 of 20 rounds (Salmon et al. 2011), two words of 32 bits."""
    words = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    a, b = np.uint32(high) + words[0], np.uint32(low) + words[1]
    for group in range(5):
        for turn in ROTATIONS[group % 2]:
            a = a + b
            b = (b << np.uint32(turn) | b >> np.uint32(32 - turn)) ^ a
        a = a + words[(group + 1) % 3]
        b = b + words[(group + 2) % 3] + np.uint32(group + 1)
    return a, b


def stream(key: Key, name: str) -> Key:
    """Returns the key of a stream: the key, with the name's CRC-32 folded in."""
    return threefry(key, 0, zlib.crc32(name.encode()))


def keys(seed: int, name: str, positions: Array, *names: str) -> Key:
    """Returns the keys of the examples at `positions` in a run's stream, [batch, 1]."""
    key = stream((np.zeros(1, np.uint32), np.full(1, seed, np.uint32)), name)
    for further in names:
        key = stream(key, further)
    a, b = threefry(key, 0, positions)
    return a[:, None], b[:, None]


def bits(key: Key, count: int = 1) -> Array:
    """Returns `count` random words for each key, uint32 [batch, count]."""
    a, b = threefry(key, 0, np.arange(count, dtype=np.uint32)[None])
    return a ^ b


def uniform(key: Key, low: float = 0.0, high: float = 1.0, count: int = 1) -> Array:
    """Returns numbers in [low, high) of 23 random bits, float64 [batch, count]."""
    fraction = (bits(key, count) >> np.uint32(9)) / 2**23
    return low + (high - low) * fraction


def integers(key: Key, stop: int) -> Array:
    """Returns integers in [0, stop), made of two random words, int64 [batch]."""
    both = [bits(threefry(key, 0, i)).astype(np.uint64)[:, 0] for i in (0, 1)]
    carry = pow(2, 32, stop)
    return ((both[0] % stop * carry + both[1] % stop) % stop).astype(np.int64)


def draw(
    seed: int, positions: Array, shape: tuple[int, ...], crop: int, chosen: Collection
) -> dict[str, Array]:
    """Returns the parameters of the chosen distortions by name, each [batch].

    `shape` is (height, width, channels) of the pictures; what is not chosen is absent.
    """
    turn, rows, columns = np.pi / 18, shape[0] - crop + 1, shape[1] - crop + 1
    ranges: dict[str, tuple[str, Any]] = {
        "shift_rows": ("shift", (-2, 2)),
        "shift_columns": ("shift", (-2, 2)),
        "rotate": ("rotate", (-turn, turn)),
        "scale": ("scale", (0.9, 1.1)),
        "crop_top": ("crop", rows),
        "crop_left": ("crop", columns),
        "flip": ("flip", (0, 1)),
        "brightness": ("brightness", (-63, 63)),
        "contrast": ("contrast", (0.2, 1.8)),
        "cutout_row": ("cutout", crop),
        "cutout_column": ("cutout", crop),
    }
    found = {}
    for name, (distortion, of) in ranges.items():
        key = keys(seed, "data", positions, name)
        if distortion in chosen:
            whole = isinstance(of, int)
            found[name] = integers(key, of) if whole else uniform(key, *of)[:, 0]
    return found


def distort(images: Array, drawn: dict[str, Array], crop: int) -> Array:
    """Returns distorted pictures, each standardised, float64 [batch, crop, crop, c]."""
    made = []
    for i, image in enumerate(images.astype(float)):
        own = {name: values[i] for name, values in drawn.items()}
        if {"rotate", "scale", "shift_rows"} & own.keys():
            image = _move(image, own)
        top = own.get("crop_top", (image.shape[0] - crop) // 2)
        left = own.get("crop_left", (image.shape[1] - crop) // 2)
        image = image[top : top + crop, left : left + crop]
        if own.get("flip", 1) < 0.5:
            image = image[:, ::-1]
        image = image + own.get("brightness", 0)
        mean = image.mean(axis=(0, 1))
        image = (image - mean) * own.get("contrast", 1) + mean
        image = (image - image.mean()) / max(image.std(), image.size**-0.5)
        if "cutout_row" in own:
            first = [own[f"cutout_{side}"] - crop // 4 for side in ("row", "column")]
            rows, columns = (slice(max(n, 0), n + crop // 2) for n in first)
            image[rows, columns] = 0
        made.append(image)
    return np.stack(made)


def _move(image: Array, own: dict[str, Array]) -> Array:
    """Shifts, turns and scales a picture about its centre, pixel by pixel."""
    height, width, _ = image.shape
    padded = np.pad(image, [(1, 1), (1, 1), (0, 0)])
    centre = np.array([height - 1, width - 1]) / 2
    shift = np.array([own.get("shift_rows", 0.0), own.get("shift_columns", 0.0)])
    angle = own.get("rotate", 0.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    out = np.zeros_like(image)
    for pixel in np.ndindex(height, width):
        row, column = (
            centre + turn @ (pixel - centre - shift) / own.get("scale", 1.0) + 1
        )
        if not (0 <= row < height + 1 and 0 <= column < width + 1):
            continue
        i, j = int(row), int(column)
        down, right = row - i, column - j
        above = (1 - right) * padded[i, j] + right * padded[i, j + 1]
        below = (1 - right) * padded[i + 1, j] + right * padded[i + 1, j + 1]
        out[pixel] = (1 - down) * above + down * below
    return out
