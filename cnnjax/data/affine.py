"""Shifting, turning and scaling pictures, bilinearly."""

import jax
import jax.numpy as jnp


def matrix(
    rows: jax.Array,
    columns: jax.Array,
    angle: jax.Array,
    zoom: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """Returns where each pixel of a distorted picture is taken from.

    source = centre + rotation(angle) @ (pixel - centre - shift) / zoom, with
    rotation(a) = [[cos a, -sin a], [sin a, cos a]] on (row, column).

    Args:
        rows: the picture moves down by this, pixels [batch].
        columns: the picture moves right by this, pixels [batch].
        angle: radians [batch].
        zoom: the picture grows by this factor [batch].
        size: height and width; the centre is between the middle pixels.

    Returns:
        float32 [batch, 2, 3].
    """
    middle_row, middle_column = (size[0] - 1) / 2, (size[1] - 1) / 2
    a, b = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    row, column = middle_row + rows, middle_column + columns
    top = jnp.stack([a, -b, middle_row - a * row + b * column], axis=-1)
    bottom = jnp.stack([b, a, middle_column - b * row - a * column], axis=-1)
    return jnp.stack([top, bottom], axis=1)


def resample(images: jax.Array, moves: jax.Array) -> jax.Array:
    """Takes each pixel from where `moves` says, bilinearly; zero outside the picture.

    Args:
        images: float32 [batch, height, width, channels].
        moves: float32 [batch, 2, 3], see `matrix`.

    Returns:
        float32, the shape of `images`.
    """
    batch, height, width, channels = images.shape
    pixels = images.reshape(batch, height * width, channels)
    row, column = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    grid = jnp.stack([row, column, jnp.ones_like(row)]).reshape(3, -1)
    # float32 whatever the accelerator: TF32 would move pixels by a tenth of one.
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
