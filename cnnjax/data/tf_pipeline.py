"""Training batches made by tf.data on the host, ahead of the steps that use them."""

import itertools
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from cnnjax import prng
from cnnjax.data import augment, sampling
from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Split
from cnnjax.data.tensorflow_import import import_tensorflow

tf = import_tensorflow()
Tensor = Any  # tf.Tensor; type checkers do not see a module imported by name

# Random draws and permutations are made for this many steps at a time, to spread their
# fixed cost. With the images this takes 27 MB for CIFAR-10 with batches of 128.
CHUNK_STEPS = 64
PREFETCH_STEPS = 4


def batches(
    split: Split,
    preprocessing: Preprocessing,
    *,
    seed: int,
    batch_size: int,
    steps: range,
    workers: int,
    rows: slice = slice(None),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the distorted training batches of consecutive steps of a run, in order.

    A batch is a pure function of (seed, step): any number of `workers`, which are the
    threads that tf.data may use (the chapter uses 16), makes the same bytes, from the
    start or from any step. Only the given `rows` of each batch are made.

    Yields:
        image float32 [batch, height, width, channels], label int32 [batch],
        mask float32 [batch] of ones, position uint32 [batch].
    """
    if not steps:
        return iter(())  # the run was killed in its last evaluation
    key = prng.from_seed(seed, prng.DATA)
    image_shape = split.images.shape[1:]

    def chunks() -> Iterator[dict[str, Any]]:
        for start in range(steps.start, steps.stop, CHUNK_STEPS):
            count = min(CHUNK_STEPS, steps.stop - start)
            positions = range(start * batch_size, (start + count) * batch_size)
            indices = sampling.example_indices(seed, len(split.labels), positions)
            indices = indices.reshape(count, batch_size)[:, rows].ravel()
            # Always as many as a full chunk has, so that `draw` compiles only once.
            whole = np.arange(CHUNK_STEPS * batch_size).reshape(-1, batch_size)
            drawn = (whole[:, rows].ravel() + positions.start).astype(np.uint32)
            params = jax.device_get(
                augment.draw(key, drawn, preprocessing, image_shape)
            )
            # Not gathered in the graph, which would hold a copy of all images.
            chunk = {"image": split.images[indices], "label": split.labels[indices]}
            chunk |= {"position": drawn}
            chunk |= {k: v for k, v in params._asdict().items() if v is not None}
            yield {
                name: values[: len(indices)].reshape(
                    count, len(indices) // count, *values.shape[1:]
                )
                for name, values in chunk.items()
            }

    @tf.autograph.experimental.do_not_convert  # 0.4 s, with nothing to convert
    def make_batch(step: dict[str, Tensor]) -> dict[str, Tensor]:
        fields: Any = map(step.get, augment.DistortionParams._fields)
        params = augment.DistortionParams(*fields)
        return {
            "image": apply(step["image"], params, preprocessing),
            "label": step["label"],
            "mask": tf.ones(tf.shape(step["label"])),
            "position": step["position"],
        }

    made = chunks()
    first = next(made)
    signature = {
        name: tf.TensorSpec((None, *values.shape[1:]), values.dtype)
        for name, values in first.items()
    }
    dataset = tf.data.Dataset.from_generator(
        lambda: itertools.chain([first], made), output_signature=signature
    )
    dataset = dataset.unbatch()
    dataset = dataset.map(make_batch, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.prefetch(PREFETCH_STEPS)
    options = tf.data.Options()
    # A thread pool of its own, no larger than the cores, takes the least time from XLA.
    options.threading.private_threadpool_size = min(workers, os.cpu_count() or 1)
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options).as_numpy_iterator()


def apply(
    images: Tensor, params: augment.DistortionParams, preprocessing: Preprocessing
) -> Tensor:
    """Does what `augment.apply` does, with TF operations on all images at once."""
    shape = tuple(images.shape[1:])
    if params.affine is not None:
        images = resample(images, params.affine)
    height, width, channels = preprocessing.output_shape(shape)
    # Crop and flip together are one gather of pixels.
    rows = params.top[:, None] + tf.range(height)[None, :]
    columns = tf.range(width)[None, :]
    columns = tf.where(params.flip[:, None], width - 1 - columns, columns)
    columns = columns + params.left[:, None]
    first_row = tf.range(tf.shape(rows)[0])[:, None] * shape[0]
    pixel = ((first_row + rows) * shape[1])[:, :, None] + columns[:, None, :]
    x = tf.cast(tf.gather(tf.reshape(images, [-1, channels]), pixel), tf.float32)
    # As rows of values: three channels are too few to fill a vector instruction.
    x = tf.reshape(x, [-1, height, width * channels])
    brightness = tf.constant(0.0)
    if params.brightness is not None:
        brightness = params.brightness[:, None, None]
    if params.contrast is not None:
        mean = tf.reshape(tf.reduce_mean(x, axis=1), [-1, width, channels])
        mean = tf.tile(tf.reduce_mean(mean, axis=1)[:, None], [1, 1, width])
        # Brightness moves mean and pixels alike, so adding it to the mean saves a pass.
        x = (x - mean) * params.contrast[:, None, None] + (mean + brightness)
    elif params.brightness is not None:
        x = x + brightness
    if preprocessing.normalise == "unit":
        x = x * (1 / 255)
    else:
        x = x - tf.reduce_mean(x, axis=(1, 2), keepdims=True)
        std = tf.sqrt(tf.reduce_mean(tf.square(x), axis=(1, 2), keepdims=True))
        x = x / tf.maximum(std, (height * width * channels) ** -0.5)
    x = tf.reshape(x, [-1, height, width, channels])
    return x if params.cutout is None else cut_out(x, params.cutout)


def cut_out(x: Tensor, centres: Tensor) -> Tensor:
    """Does what `augment.cut_out` does, with TF operations."""
    height, width = x.shape[1:3]
    side = int(augment.CUTOUT_SHARE * height)
    first = centres - side // 2
    row, column = tf.range(height)[None], tf.range(width)[None]
    top, left = first[:, :1], first[:, 1:]
    rows = (row >= top) & (row < top + side)
    columns = (column >= left) & (column < left + side)
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(covered, 0.0, x)


def resample(images: Tensor, affine: Tensor) -> Tensor:
    """Does what `augment.resample` does, for uint8 images, with TF operations."""
    height, width, channels = images.shape[1:]
    pixels = tf.cast(tf.reshape(images, [-1, height * width, channels]), tf.float32)
    row, column = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
    source = tf.matmul(affine, np.stack([row, column, np.ones_like(row)])[None])
    corner = tf.floor(source)
    beyond = source - corner
    out = tf.zeros_like(pixels)
    for down in (0, 1):
        for right in (0, 1):
            at_row = tf.cast(corner[:, 0], tf.int32) + down
            at_column = tf.cast(corner[:, 1], tf.int32) + right
            inside = (at_row >= 0) & (at_row < height)
            inside &= (at_column >= 0) & (at_column < width)
            index = tf.where(inside, at_row * width + at_column, 0)
            weight = tf.abs(1 - down - beyond[:, 0])
            weight *= tf.abs(1 - right - beyond[:, 1])
            weight = tf.where(inside, weight, 0.0)[:, :, None]
            out += weight * tf.gather(pixels, index, batch_dims=1)
    return tf.reshape(out, tf.shape(images))
