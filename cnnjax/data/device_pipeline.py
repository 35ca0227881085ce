"""The data set on the device: batches are made there, inside the compiled step."""

from collections.abc import Mapping

import jax
import numpy as np

from cnnjax import prng
from cnnjax.data import augment, sampling
from cnnjax.data.arrays import Split
from cnnjax.data.augment import Preprocessing


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
    if "alternating_flip" in preprocessing.distortions:
        # A picture's first flip is drawn, and then every other pass mirrors it.
        keys = prng.at_positions(prng.stream(key, "flip"), index.astype("uint32"))
        first = jax.vmap(jax.random.bernoulli)(keys)
        odd = (position // len(data["label"])) % 2 == 1
        params = params._replace(flip=first ^ odd)
    image, label = augment.apply(images, params, preprocessing), data["label"][index]
    if preprocessing.mixup:
        # Zhang et al. 2018: each picture with the one opposite to it in the batch.
        keys = prng.at_positions(prng.stream(key, "mixup"), position)
        alpha = preprocessing.mixup
        share = jax.vmap(lambda k: jax.random.beta(k, alpha, alpha))(keys)
        part = share.reshape(-1, 1, 1, 1)
        return {
            "image": part * image + (1 - part) * image[::-1],
            "label": label,
            "other": label[::-1],
            "share": share,
            "mask": jax.numpy.ones(index.shape),
            "position": position,
        }
    return {
        "image": image,
        "label": label,
        "mask": jax.numpy.ones(index.shape),
        "position": position,
    }
