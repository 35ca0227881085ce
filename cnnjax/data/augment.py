"""Distortions of images: their random parameters, and their application in JAX.

Parameters are always drawn here, with threefry, which gives the same numbers on every
backend; `apply` uses them in JAX and `tf_pipeline.apply` in tf.data, so both pipelines
make the same images.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnjax import prng
from cnnjax.errors import InputError

# In the order of application; the chapter's (section 5.3) are crop to contrast.
AFFINE = ("shift", "rotate", "scale")
DISTORTIONS = (*AFFINE, "crop", "flip", "brightness", "contrast", "cutout")
NORMALISATIONS = ("per_image", "unit")

# The chapter, section 5.3: tf.image.random_brightness(max_delta=63) and
# tf.image.random_contrast(lower=0.2, upper=1.8), on pixels in [0, 255].
BRIGHTNESS_MAX_DELTA = 63.0
CONTRAST_RANGE = (0.2, 1.8)

# The variation of handwriting, for digits: at most so many pixels and radians either
# way, and a range of factors.
SHIFT_MAX = 2.0
ROTATION_MAX = math.radians(10)
SCALE_RANGE = (0.9, 1.1)

# Side of the square that cutout covers, as a fraction of the image's: 16 of CIFAR-10's
# 32 pixels (DeVries and Taylor 2017, section 4.1).
CUTOUT_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images of a data set become the input of a network.

    Attributes:
        crop: side of the square that the network sees, in pixels; 0 for no crop.
        distortions: of training images; some of `DISTORTIONS`.
        normalise: "per_image" or "unit", see `normalise`.

    Example:
        >>> seen = cj.Preprocessing(24, ("crop", "flip"), "per_image")
        >>> seen.output_shape((32, 32, 3))
        (24, 24, 3)
    """

    crop: int
    distortions: tuple[str, ...]
    normalise: str

    def output_shape(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Returns (height, width, channels) of the network's input.

        Raises InputError if the crop is larger than the images.
        """
        height, width, channels = image_shape
        if self.crop > min(height, width):
            got = f"a crop of {self.crop} from pictures of {height}x{width}"
            raise InputError(f"got {got}, need at most {min(height, width)}; crop less")
        return (self.crop or height, self.crop or width, channels)


class DistortionParams(NamedTuple):
    """The parameters of each example of a batch; None for distortions not applied.

    Attributes:
        affine: maps (row, column, 1) of a pixel of the distorted image to (row, column)
            in the original, float32 [batch, 2, 3].
        top: first row of the crop, int32 [batch].
        left: first column of the crop, int32 [batch].
        flip: whether the image is mirrored left to right, bool [batch].
        brightness: added to every pixel, float32 [batch].
        contrast: factor about each channel's mean, float32 [batch].
        cutout: row and column of the covered square's centre in the cropped image,
            int32 [batch, 2].
    """

    affine: jax.Array | None
    top: jax.Array
    left: jax.Array
    flip: jax.Array
    brightness: jax.Array | None
    contrast: jax.Array | None
    cutout: jax.Array | None


@partial(jax.jit, static_argnames=("preprocessing", "image_shape"))
def draw(
    key: jax.Array,
    positions: jax.Array,
    preprocessing: Preprocessing,
    image_shape: tuple[int, ...],
) -> DistortionParams:
    """Draws the distortion parameters of the examples at `positions`, uint32 [batch].

    shift ~ U[-2, 2) pixels along each side; rotate ~ U[-10, 10) degrees and
    scale ~ U[0.9, 1.1), about the centre; top, left ~ uniform{0 .. side - crop};
    flip ~ Bernoulli(1/2); brightness ~ U[-63, 63); contrast ~ U[0.2, 1.8); the centre
    of cutout ~ uniform over the pixels of the crop. Parameters of distortions that are
    not chosen are those of `central`.

    `key` is the run's stream `prng.DATA`; `image_shape` is the data set's, before any
    crop.
    """
    height, width, _ = image_shape
    crop_height, crop_width, _ = preprocessing.output_shape(image_shape)

    def sample(name: str, sampler: Callable[[jax.Array], jax.Array]) -> jax.Array:
        keys = prng.at_positions(prng.stream(key, name), positions)
        return jax.vmap(sampler)(keys)

    def offset(room: int) -> Callable[[jax.Array], jax.Array]:
        return lambda key: jax.random.randint(key, (), 0, room + 1)

    def uniform(low: float, high: float) -> Callable[[jax.Array], jax.Array]:
        return lambda key: jax.random.uniform(key, (), minval=low, maxval=high)

    params = central(len(positions), preprocessing, image_shape)
    chosen = preprocessing.distortions
    if set(AFFINE) & set(chosen):
        shift = uniform(-SHIFT_MAX, SHIFT_MAX)
        nothing = jnp.zeros(len(positions))
        rows = sample("shift_rows", shift) if "shift" in chosen else nothing
        columns = sample("shift_columns", shift) if "shift" in chosen else nothing
        rotation = uniform(-ROTATION_MAX, ROTATION_MAX)
        angle = sample("rotate", rotation) if "rotate" in chosen else nothing
        scale = uniform(*SCALE_RANGE)
        zoom = sample("scale", scale) if "scale" in chosen else nothing + 1
        moves = matrix(rows, columns, angle, zoom, (height, width))
        params = params._replace(affine=moves)
    if "crop" in chosen:
        params = params._replace(
            top=sample("crop_top", offset(height - crop_height)),
            left=sample("crop_left", offset(width - crop_width)),
        )
    if "flip" in chosen:
        params = params._replace(flip=sample("flip", jax.random.bernoulli))
    if "brightness" in chosen:
        delta = uniform(-BRIGHTNESS_MAX_DELTA, BRIGHTNESS_MAX_DELTA)
        params = params._replace(brightness=sample("brightness", delta))
    if "contrast" in chosen:
        factor = uniform(*CONTRAST_RANGE)
        params = params._replace(contrast=sample("contrast", factor))
    if "cutout" in chosen:
        rows = sample("cutout_row", offset(crop_height - 1))
        columns = sample("cutout_column", offset(crop_width - 1))
        params = params._replace(cutout=jnp.stack([rows, columns], axis=-1))
    return params


def central(
    batch_size: int, preprocessing: Preprocessing, image_shape: tuple[int, ...]
) -> DistortionParams:
    """Returns the parameters of evaluation: the central crop and nothing else.

    An odd margin is larger at the end, as in `tf.image.resize_with_crop_or_pad`.
    """
    height, width, _ = image_shape
    crop_height, crop_width, _ = preprocessing.output_shape(image_shape)
    return DistortionParams(
        affine=None,
        top=jnp.full((batch_size,), (height - crop_height) // 2, jnp.int32),
        left=jnp.full((batch_size,), (width - crop_width) // 2, jnp.int32),
        flip=jnp.zeros((batch_size,), bool),
        brightness=None,
        contrast=None,
        cutout=None,
    )


def apply(
    images: jax.Array, params: DistortionParams, preprocessing: Preprocessing
) -> jax.Array:
    """Turns uint8 images into the network's input, with the distortions of `params`.

    In this order: affine motion, crop, flip, brightness, contrast, normalisation,
    cutout. Pixel values are not clipped.

    Args:
        images: uint8 [batch, height, width, channels].
        params: from `draw` or `central`.
        preprocessing: crop and normalisation.

    Returns:
        float32 [batch, crop, crop, channels].
    """
    height, width, _ = preprocessing.output_shape(images.shape[1:])
    if params.affine is not None:
        images = resample(images.astype(jnp.float32), params.affine)

    def crop_and_flip(
        image: jax.Array, top: jax.Array, left: jax.Array, flip: jax.Array
    ) -> jax.Array:
        start = (top, left, jnp.zeros((), jnp.int32))
        image = jax.lax.dynamic_slice(image, start, (height, width, image.shape[-1]))
        return jnp.where(flip, image[:, ::-1], image)

    x = jax.vmap(crop_and_flip)(images, params.top, params.left, params.flip)
    x = x.astype(jnp.float32)
    if params.brightness is not None:
        x = x + params.brightness.reshape(-1, 1, 1, 1)
    if params.contrast is not None:
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        x = (x - mean) * params.contrast.reshape(-1, 1, 1, 1) + mean
    x = normalise(x, preprocessing.normalise)
    return x if params.cutout is None else cut_out(x, params.cutout)


def cut_out(x: jax.Array, centres: jax.Array) -> jax.Array:
    """Sets a square of each image to 0; it may extend past the image's edge.

    Its side is `CUTOUT_SHARE` of the height, rounded down.

    Args:
        x: float32 [batch, height, width, channels], normalised.
        centres: row and column of each square's centre, int32 [batch, 2].

    Source: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural
    Networks with Cutout", which also normalises first.
    """
    height, width = x.shape[1:3]
    side = int(CUTOUT_SHARE * height)
    first = centres - side // 2
    row, column = jnp.arange(height)[None], jnp.arange(width)[None]
    top, left = first[:, :1], first[:, 1:]
    rows = (row >= top) & (row < top + side)
    columns = (column >= left) & (column < left + side)
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(covered, 0.0, x)


def normalise(x: jax.Array, how: str) -> jax.Array:
    """Normalises pixels in [0, 255], float32 [batch, height, width, channels].

    per_image: (x - mean) / max(std, 1 / sqrt(num_values)) over each image, as
    `tf.image.per_image_standardization` (the chapter's text divides by the variance,
    its code by this). unit: x / 255, in [0, 1].
    """
    if how == "unit":
        return x * (1 / 255)
    num_values = x.shape[1] * x.shape[2] * x.shape[3]
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    std = jnp.std(x, axis=(1, 2, 3), keepdims=True)
    return (x - mean) / jnp.maximum(std, num_values**-0.5)


def standard_view(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Returns the network's input in evaluation: `apply` with the central crop."""
    params = central(images.shape[0], preprocessing, images.shape[1:])
    return apply(images, params, preprocessing)


def views(
    images: jax.Array, preprocessing: Preprocessing, *, mirrored: bool
) -> jax.Array:
    """Returns 5 or, with `mirrored`, 10 views of each image.

    They are the crops of the four corners and the centre, followed by their mirror
    images; each is normalised by itself, and none is distorted.

    Args:
        images: uint8 [batch, height, width, channels].
        preprocessing: crop (more than 0) and normalisation.
        mirrored: whether mirror images are views too; they make no sense for digits.

    Returns:
        float32 [views, batch, crop, crop, channels].

    Source: cuda-convnet's multiview test, `CroppedCIFARDataProvider` of `convdata.py`.
    """
    height, width = images.shape[1:3]
    crop = preprocessing.crop
    below, right = height - crop, width - crop
    places = ((0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2))
    crops = [
        images[:, top : top + crop, left : left + crop].astype(jnp.float32)
        for top, left in places
    ]
    if mirrored:
        crops += [view[:, :, ::-1] for view in crops]
    how = preprocessing.normalise
    return jnp.stack([normalise(view, how) for view in crops])


def matrix(
    rows: jax.Array,
    columns: jax.Array,
    angle: jax.Array,
    zoom: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """Returns the matrices `DistortionParams.affine`, float32 [batch, 2, 3].

    source = centre + rotation(angle) @ (pixel - centre - shift) / zoom, with
    rotation(a) = [[cos a, -sin a], [sin a, cos a]] on (row, column).

    Args:
        rows: by which the image moves down, in pixels, [batch].
        columns: by which the image moves right, in pixels, [batch].
        angle: in radians, [batch].
        zoom: factor by which the image grows, [batch].
        size: (height, width); the centre is between the middle pixels.
    """
    middle_row, middle_column = (size[0] - 1) / 2, (size[1] - 1) / 2
    a, b = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    row, column = middle_row + rows, middle_column + columns
    top = jnp.stack([a, -b, middle_row - a * row + b * column], axis=-1)
    bottom = jnp.stack([b, a, middle_column - b * row - a * column], axis=-1)
    return jnp.stack([top, bottom], axis=1)


def resample(images: jax.Array, moves: jax.Array) -> jax.Array:
    """Moves pixels by bilinear interpolation; outside the image there are zeros.

    `images` and the result are float32 [batch, height, width, channels]; `moves` are
    the matrices of `matrix`, float32 [batch, 2, 3].
    """
    batch, height, width, channels = images.shape
    pixels = images.reshape(batch, height * width, channels)
    row, column = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    grid = jnp.stack([row, column, jnp.ones_like(row)]).reshape(3, -1)
    # Full float32 on every accelerator: TF32 would move pixels by a tenth of a pixel.
    source = jnp.matmul(moves, grid.astype(jnp.float32), precision="highest")
    corner = jnp.floor(source)
    beyond = source - corner
    out = jnp.zeros_like(pixels)
    for down in (0, 1):
        for right in (0, 1):
            at_row = corner[:, 0].astype(jnp.int32) + down
            at_column = corner[:, 1].astype(jnp.int32) + right
            inside = (at_row >= 0) & (at_row < height)
            inside &= (at_column >= 0) & (at_column < width)
            index = jnp.where(inside, at_row * width + at_column, 0)
            weight = jnp.abs(1 - down - beyond[:, 0])
            weight *= jnp.abs(1 - right - beyond[:, 1])
            weight = jnp.where(inside, weight, 0.0)[:, :, None]
            out += weight * jnp.take_along_axis(pixels, index[:, :, None], axis=1)
    return out.reshape(images.shape)
