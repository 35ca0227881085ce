"""Batches made on the device from the data set there, without TensorFlow."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Protocol

import jax
import numpy as np

from cnnjax import prng
from cnnjax.data import augment, sampling
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split


def chunk(
    *,
    seed: int,
    num_examples: int,
    batch_size: int,
    first_step: int,
    num_steps: int,
    capacity: int,
) -> dict[str, np.ndarray]:
    """Returns which examples make up the next steps, made on the host.

    Args:
        seed: of the run.
        num_examples: in the training set.
        batch_size: of the global batch.
        first_step: of the chunk.
        num_steps: in the chunk, 1 to `capacity`.
        capacity: steps that there is room for; what is over is filled with zeros.

    Returns:
        index int32 and position uint32, [batch, capacity]: the batch leads, so that it
        is what devices share.
    """
    start = first_step * batch_size
    positions = range(start, start + num_steps * batch_size)
    index = sampling.example_indices(seed, num_examples, positions)
    chunk = {"index": index.astype(np.int32), "position": np.array(positions, "uint32")}
    return {
        name: np.pad(
            values.reshape(num_steps, batch_size).T, ((0, 0), (0, capacity - num_steps))
        )
        for name, values in chunk.items()
    }


def whole(split: Split) -> dict[str, np.ndarray]:
    """Returns the data set as `make_batch` takes it: image uint8 and label int32."""
    return {"image": split.images, "label": split.labels}


def make_batch(
    seed: jax.Array,
    data: Mapping[str, jax.Array],
    index: jax.Array,
    position: jax.Array,
    preprocessing: Preprocessing,
) -> dict[str, jax.Array]:
    """Returns a batch: what `tf_pipeline.batches` makes of it, within 1e-4.

    Args:
        seed: of the run, uint32 [].
        data: image uint8 [num_examples, height, width, channels], label int32
            [num_examples].
        index: of the batch's examples, int32 [batch].
        position: of the batch's examples in the run, uint32 [batch].
        preprocessing: crop, distortions and normalisation.

    Returns:
        image float32 [batch, crop, crop, channels], label int32 [batch], mask float32
        [batch] of ones, position uint32 [batch].
    """
    images = data["image"][index]
    key = prng.from_seed(seed, prng.DATA)
    params = augment.draw(key, position, preprocessing, images.shape[1:])
    return {
        "image": augment.apply(images, params, preprocessing),
        "label": data["label"][index],
        "mask": jax.numpy.ones(index.shape),
        "position": position,
    }


class HasPreprocessing(Protocol):
    """A recipe, as far as batches need it."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Crop, distortions and normalisation."""


def batches(
    split: Split, recipe: HasPreprocessing, *, seed: int, batch_size: int, steps: range
) -> Iterator[dict[str, jax.Array]]:
    """Yields the distorted training batches of some steps of a run, in order.

    A batch is a pure function of (seed, step); each epoch uses every example once, and
    batches run across the ends of epochs.

    Args:
        split: the training pictures.
        recipe: for its crop, distortions and normalisation.
        seed: of the run, in [0, 2**32).
        batch_size: examples a batch.
        steps: which steps, from 0 on.

    Yields:
        what `make_batch` returns.
    """
    data = jax.device_put(whole(split))
    make = jax.jit(partial(make_batch, preprocessing=recipe.preprocessing))
    for step in steps:
        made = chunk(
            seed=seed,
            num_examples=len(split.labels),
            batch_size=batch_size,
            first_step=step,
            num_steps=1,
            capacity=1,
        )
        yield make(np.uint32(seed), data, made["index"][:, 0], made["position"][:, 0])
