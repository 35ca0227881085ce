"""Training batches made on the device that holds the data set, without TensorFlow."""

import operator
from collections.abc import Iterator, Mapping
from typing import Protocol

import jax
import numpy as np

from cnnjax import prng
from cnnjax.data import augment, sampling
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split, checked
from cnnjax.errors import InputError


def chunk(
    *,
    seed: int,
    num_examples: int,
    batch_size: int,
    first_step: int,
    num_steps: int,
    capacity: int,
) -> dict[str, np.ndarray]:
    """Returns the examples of the next `num_steps` steps, as arrays on the host.

    Returns:
        index int32 and position uint32, [batch, capacity], with zeros after the first
        `num_steps`. The batch is the first axis, which is split over the devices.
    """
    start = first_step * batch_size
    positions = range(start, start + num_steps * batch_size)
    index = sampling.example_indices(seed, num_examples, positions)
    chunk = {"index": index.astype(np.int32), "position": np.array(positions, "uint32")}
    after = ((0, 0), (0, capacity - num_steps))
    return {
        name: np.pad(values.reshape(num_steps, batch_size).T, after)
        for name, values in chunk.items()
    }


def whole(split: Split) -> dict[str, np.ndarray]:
    """Returns a split as `make_batch` takes it: image uint8 and label int32."""
    return {"image": split.images, "label": split.labels}


def make_batch(
    seed: jax.Array,
    data: Mapping[str, jax.Array],
    index: jax.Array,
    position: jax.Array,
    preprocessing: Preprocessing,
) -> dict[str, jax.Array]:
    """Returns a batch, equal to that of `tf_pipeline.batches` within 1e-4.

    Args:
        seed: of the run, uint32 [].
        data: from `whole`.
        index: of the batch's examples in `data`, int32 [batch].
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


_make = jax.jit(make_batch, static_argnames="preprocessing")


class HasPreprocessing(Protocol):
    """The part of a recipe that batches need."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Crop, distortions and normalisation."""


def batches(
    split: Split, recipe: HasPreprocessing, *, seed: int, batch_size: int, steps: range
) -> Iterator[dict[str, jax.Array]]:
    """Yields the distorted training batches of the given steps of a run, in order.

    Each is what `make_batch` returns, and a pure function of (seed, step), where `seed`
    is in [0, 2**32) and steps count from 0. Each epoch uses every example once, and
    batches run across the ends of epochs.

    Raises:
        InputError: the split is not as `Split` says, a label is beyond the classes of a
            network with a field `num_classes`, or a number is out of range.

    Example:
        >>> data, recipe = cj.load_dataset("digits"), cj.make_recipe(cj.MLP())
        >>> for batch in cj.batches(
        ...     data.train, recipe, seed=0, batch_size=50, steps=range(7, 9)
        ... ):
        ...     print(batch["image"].shape, batch["position"][0])
        (50, 28, 28, 1) 350
        (50, 28, 28, 1) 400
    """
    seed, batch_size = map(operator.index, (seed, batch_size))  # NumPy's would overflow
    ends = [operator.index(step) for step in (*steps[:1], *steps[-1:])] or [0]
    fits = min(ends) >= 0 and (max(ends) + 1) * batch_size <= 2**32
    if batch_size < 1 or not 0 <= seed < 2**32 or not fits:
        raise InputError(
            f"got {batch_size=}, {seed=} and {steps=}, need at least 1, a seed in"
            " [0, 2**32), and steps from 0 with at most 2**32 examples; correct them"
        )
    network = getattr(recipe, "model", None)
    split = checked("batches", split, getattr(network, "num_classes", None))
    data = jax.device_put(whole(split))
    for step in map(operator.index, steps):
        made = chunk(
            seed=seed,
            num_examples=len(split.labels),
            batch_size=batch_size,
            first_step=step,
            num_steps=1,
            capacity=1,
        )
        index, position = made["index"][:, 0], made["position"][:, 0]
        yield _make(np.uint32(seed), data, index, position, recipe.preprocessing)
