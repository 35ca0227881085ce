"""The two data sets that need no download: drawn shapes, and scikit-learn's digits.

They let every script run on a machine without data or network. Accuracy on them says
nothing about CIFAR-10 or MNIST, because they are easy.
"""

from collections.abc import Callable

import numpy as np

from cnnjax.data.dataset import Split

SHAPES_TRAIN = 10_000
SHAPES_TEST = 2_000
DIGITS_TEST_EVERY = 6

_SHAPES_SEED = 5


def shapes() -> tuple[Split, Split, tuple[str, ...]]:
    """Draws the data set "shapes": ten forms in noisy 32x32 colour pictures.

    Each picture has one of `FORMS`, of random colour, place, size and angle, on a
    cluttered background. They come from a fixed seed and are the same bytes on every
    machine. Picture i has class i % 10. The CIFAR-10 recipe's crop and flip keep the
    class: figures lie mostly in the central 24x24 pixels, textures fill the picture,
    and a mirrored picture has the same class.

    Returns:
        10,000 training and 2,000 test pictures, uint8 [n, 32, 32, 3], and the classes.
    """
    bits = np.random.Philox(key=_SHAPES_SEED)
    count = SHAPES_TRAIN + SHAPES_TEST
    forms = tuple(FORMS)
    shape = (count, SIZE, SIZE, CHANNELS)
    images = np.empty(shape, np.uint8)
    block = CHUNK * len(forms)
    for start in range(0, count, block):
        for index, form in enumerate(forms):
            places = slice(start + index, start + block, len(forms))
            images[places] = draw(form, CHUNK, bits)
    labels = np.arange(count, dtype=np.int32) % np.int32(len(forms))
    train = Split(images[:SHAPES_TRAIN], labels[:SHAPES_TRAIN])
    return train, Split(images[SHAPES_TRAIN:], labels[SHAPES_TRAIN:]), forms


def digits() -> tuple[Split, Split, tuple[str, ...]]:
    """Returns scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to 28x28.

    They are light on black, as in MNIST. Every sixth picture of each class, in
    scikit-learn's order, is a test picture. The digits are from 13 writers, whom the
    split does not separate.

    Returns:
        1,501 training and 296 test pictures, uint8 [n, 28, 28, 1], and the classes.

    Source: sklearn.datasets.load_digits, the test part of UCI's "Optical Recognition
    of Handwritten Digits" (Alpaydin and Kaynak, 1998), which the package contains.
    """
    from sklearn import datasets

    bundled = datasets.load_digits()
    images = _enlarge(bundled.images.astype(np.int32))
    labels = bundled.target.astype(np.int32)
    rank = np.empty_like(labels)
    for label in range(10):
        members = labels == label
        rank[members] = np.arange(members.sum())
    test = rank % DIGITS_TEST_EVERY == DIGITS_TEST_EVERY - 1
    train, held_out = (Split(images[part], labels[part]) for part in (~test, test))
    return train, held_out, tuple(str(label) for label in range(10))


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarges pictures threefold by linear interpolation, with a black border of 2.

    Along each axis pixel i becomes (x[i-1] + 2 x[i]) / 3, x[i], (x[i+1] + 2 x[i]) / 3,
    with 0 outside the picture. The integer sums, in [0, 9 * 16], are scaled to [0, 255]
    and rounded down. So int32 [n, 8, 8] becomes uint8 [n, 28, 28, 1].
    """
    for axis in (1, 2):
        padding = [(1, 1) if axis == a else (0, 0) for a in range(3)]
        before, here, after = (
            np.take(np.pad(images, padding), range(i, i + 8), axis) for i in range(3)
        )
        thirds = np.stack([before + 2 * here, 3 * here, after + 2 * here], axis + 1)
        shape = list(images.shape)
        shape[axis] = 24
        images = thirds.reshape(shape)
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return (255 * framed // 144).astype(np.uint8)[..., None]


SIZE = 32
CHANNELS = 3
CHUNK = 100

_PIXEL = 16
# Random 64-bit words per picture: for its figure, each bar, and one byte per value.
_FIGURE_DRAWS = 9
_BAR_DRAWS = 6
_BARS = 3
_NOISE_DRAWS = SIZE * SIZE * CHANNELS // 8
_DRAWS = _FIGURE_DRAWS + _BARS * _BAR_DRAWS + _NOISE_DRAWS


def _half_planes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Largest coordinate along three axes 120 degrees apart; 222/256 is sin(60 deg)."""
    tilted = (222 * np.abs(u) - 128 * v) >> 8
    return np.maximum(v, tilted)


def _disc(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return u * u + v * v <= r * r


def _ring(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    squared = u * u + v * v
    return (squared <= r * r) & (2 * squared > r * r)


def _square(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= 7 * r >> 3


def _triangle(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return _half_planes(u, v) <= 5 * r >> 3


def _cross(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    across, along = np.abs(u), np.abs(v)
    return (np.maximum(across, along) <= r) & (np.minimum(across, along) <= r >> 2)


def _star(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.minimum(_half_planes(u, v), _half_planes(u, -v)) <= r >> 1


def _stripes(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return u // _period(r) & 1 == 1


def _checkerboard(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return (u // _period(r) + v // _period(r)) & 1 == 1


def _dots(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    half = _period(r)
    a, b = u % (2 * half) - half, v % (2 * half) - half
    return 3 * (a * a + b * b) <= half * half


def _target(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    squared = u * u + v * v
    inside = np.zeros(u.shape, bool)
    for edge in range(1, 12):
        inside ^= squared <= (edge * _period(r)) ** 2
    return inside


def _period(r: np.ndarray) -> np.ndarray:
    """Width of a stripe of a texture, about three pixels."""
    return 3 * r >> 3


FORMS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "stripes": _stripes,
    "checkerboard": _checkerboard,
    "dots": _dots,
    "target": _target,
}


def draw(form: str, count: int, bits: np.random.Philox) -> np.ndarray:
    """Draws pictures of one of `FORMS`, uint8 [count, 32, 32, 3].

    Every picture takes the same number of random bits from `bits`.
    """
    raw = bits.random_raw(count * _DRAWS).reshape(count, _DRAWS)
    figure, bars, noise = np.split(raw, [_FIGURE_DRAWS, _DRAWS - _NOISE_DRAWS], axis=1)
    backdrop = _colour(figure[:, 0])
    planes = np.empty((CHANNELS, count, SIZE, SIZE), np.int16)
    planes[:] = backdrop
    for bar in np.split(bars, _BARS, axis=1):
        u, v = _turned(bar[:, 0], bar[:, 1], bar[:, 2], reach=14)
        half_length = _uniform(bar[:, 3], 2 * _PIXEL, 6 * _PIXEL)
        half_width = _uniform(bar[:, 4], _PIXEL // 2, 2 * _PIXEL)
        inside = (np.abs(u) <= half_length) & (np.abs(v) <= half_width)
        np.copyto(planes, _colour(bar[:, 5]), where=inside)
    u, v = _turned(figure[:, 1], figure[:, 2], figure[:, 3], reach=3)
    radius = _uniform(figure[:, 4], 8 * _PIXEL, 10 * _PIXEL)
    inside = FORMS[form](u, v, radius)
    np.copyto(planes, _apart(_colour(figure[:, 5]), backdrop), where=inside)
    planes += _light(figure[:, 6], figure[:, 7])
    planes += _noise(noise, _uniform(figure[:, 8], 8, 36))
    return np.moveaxis(np.clip(planes, 0, 255).astype(np.uint8), 0, -1)


def _uniform(raw: np.ndarray, low: int, high: int) -> np.ndarray:
    """Integers in [low, high]: int32 [n, 1, 1] from uint64 [n]."""
    drawn = (raw >> np.uint64(32)) % np.uint64(high - low + 1)
    return drawn.astype(np.int32)[:, None, None] + np.int32(low)


def _colour(raw: np.ndarray) -> np.ndarray:
    """A random colour: int16 [3, n, 1, 1] in [0, 255] from uint64 [n]."""
    shifts = np.array([8, 16, 24], np.uint64)[:, None]
    return (raw >> shifts & np.uint64(255)).astype(np.int16)[:, :, None, None]


def _apart(colour: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`colour`, or where it is close to `other`, `other` shifted by 128 per channel."""
    alike = np.abs(colour - other).sum(axis=0) < 150
    return np.where(alike, other ^ np.int16(128), colour)


def _turned(
    angle: np.ndarray, across: np.ndarray, down: np.ndarray, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of all pixels in a frame with a random centre and angle.

    Args:
        angle: uint64 [n], random bits for the angle.
        across: uint64 [n], random bits for the centre's column.
        down: uint64 [n], random bits for the centre's row.
        reach: largest distance of the centre from the picture's on an axis, in pixels.

    Returns:
        (u, v), each int32 [n, 32, 32] in sixteenths of a pixel.
    """
    at = _PIXEL * np.arange(SIZE, dtype=np.int32) - _PIXEL * (SIZE - 1) // 2
    x = at[None, None, :] - _uniform(across, -reach * _PIXEL, reach * _PIXEL)
    y = at[None, :, None] - _uniform(down, -reach * _PIXEL, reach * _PIXEL)
    # 256 times cos = (16^2 - t^2) / (16^2 + t^2) and sin = 2 * 16 t / (16^2 + t^2), for
    # angles in (-90, 90] degrees; the sign adds the other half of the circle.
    t = _uniform(angle, -15, 16)
    sign = 1 - 2 * (angle & np.uint64(1)).astype(np.int32)[:, None, None]
    cos = sign * (256 * (256 - t * t) // (256 + t * t))
    sin = sign * (256 * 32 * t // (256 + t * t))
    return (cos * x + sin * y) >> 8, (cos * y - sin * x) >> 8


def _light(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """A linear change of brightness, up to 31 along each axis: int16 [n, 32, 32]."""
    at = 2 * np.arange(SIZE, dtype=np.int32) - (SIZE - 1)
    along_x = _uniform(across, -32, 32) * at[None, None, :]
    along_y = _uniform(down, -32, 32) * at[None, :, None]
    return ((along_x + along_y) >> 5).astype(np.int16)


def _noise(raw: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
    """Uniform noise with an amplitude: int16 [3, n, 32, 32] from uint64 [n, 384]."""
    values = raw.astype("<u8").view(np.uint8).astype(np.int16) - np.int16(128)
    planes = values.reshape(-1, CHANNELS, SIZE, SIZE).swapaxes(0, 1)
    return planes * amplitude.astype(np.int16) >> 7
