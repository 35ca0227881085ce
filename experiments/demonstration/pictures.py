"""What a network is given of a drawing, and what is shown of its answer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from PIL import Image

from cnnjax.network import Network

# So large is what the network saw shown, about, in pixels.
SIDE = 280

# MNIST's digits are scaled to fit 20x20 pixels of 28x28, with their centre of mass in
# the middle (LeCun et al. 1998, section III.A).
SHARE = 20 / 28


def like_mnist(drawing: np.ndarray, size: int) -> np.ndarray | None:
    """Returns a drawing as light on black, scaled and centred as MNIST's digits are.

    Args:
        drawing: uint8 [height, width, 4], dark ink on white or on nothing.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 1]; None if nothing is drawn.
    """
    colour, opacity = drawing[..., :3].astype(float).mean(-1), drawing[..., 3] / 255
    ink = np.rint(opacity * (255 - colour)).astype(np.uint8)
    rows, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    if not len(rows):
        return None
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = SHARE * size / max(box.shape)
    height, width = (max(1, round(scale * side)) for side in box.shape)
    small = Image.fromarray(box).resize((width, height), Image.Resampling.LANCZOS)
    found = np.asarray(small, np.float64)
    if not found.any():  # too faint for so small a picture
        return None
    top, left = (
        round(size / 2 - float((np.arange(side) + 0.5) @ found.sum(axis)) / found.sum())
        for axis, side in ((1, height), (0, width))
    )
    whole = np.zeros((size, size, 1), np.uint8)
    # A very uneven digit may be cut off at the edge if it is centred.
    top = int(np.clip(top, 0, size - height))
    left = int(np.clip(left, 0, size - width))
    whole[top : top + height, left : left + width, 0] = np.asarray(small)
    return whole


def looker(
    network: Network,
) -> Callable[[np.ndarray], tuple[dict[str, float], np.ndarray, np.ndarray]]:
    """Returns a function of one uint8 image [height, width, channels].

    It returns the probability of each class, the crop that the network sees, enlarged,
    and the same with the network's saliency laid over it.
    """

    @jax.jit
    def both(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = image[None]
        return network.probabilities(batch)[0], network.saliency(batch)[0]

    def look(image: np.ndarray) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        shares, saliency = map(np.asarray, both(jnp.asarray(image)))
        crop = network.preprocessing.crop or len(image)
        start = (len(image) - crop) // 2
        here = slice(start, start + crop)
        seen, heat = _enlarged(image[here, here]), saliency[here, here]
        colours = matplotlib.colormaps["inferno"](heat / max(heat.max(), 1e-30))
        over = _enlarged(np.rint(255 * colours[..., :3]).astype(np.uint8))
        grey = seen.mean(axis=-1, keepdims=True)
        mattered = np.rint(0.4 * grey + 0.6 * over).astype(np.uint8)
        named = zip(network.class_names, map(float, shares), strict=True)
        return dict(named), seen, mattered

    return look


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Returns uint8 [about SIDE, about SIDE, 3], every pixel a square."""
    factor = max(1, SIDE // len(image))
    rgb = np.broadcast_to(image, (*image.shape[:2], 3))
    size = (factor * rgb.shape[1], factor * rgb.shape[0])
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.NEAREST))
