"""What a trained network does: its predictions, its calibration, its insides."""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import prng
from cnnjax.data import augment
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.evaluation import padded_batches

# Guo et al. 2017, section 2: M = 15 bins in their experiments.
NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often predictions of a confidence are right, in bins of equal width.

    Bin m of M holds the pictures whose confidence is in ((m - 1) / M, m / M].

    Attributes:
        count: pictures in each bin, int [bins].
        confidence: their mean confidence, float [bins]; NaN where there are none.
        accuracy: the fraction predicted right, float [bins]; NaN where there are none.
        error: the expected calibration error, in [0, 1].
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibrate(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """Compares confidence, the largest probability, with accuracy.

    ECE = sum_m count_m / n * |accuracy_m - confidence_m|

    Args:
        probabilities: float [n, classes], n at least 1.
        labels: int [n].

    Source: Guo, Pleiss, Sun, Weinberger 2017, equations 2 to 5.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, NUM_BINS + 1)
    # Rounding may carry a probability of 1 a little above it.
    bins = np.minimum(np.searchsorted(edges[1:], confidence), NUM_BINS - 1)
    count = np.bincount(bins, minlength=NUM_BINS)
    summed = np.bincount(bins, confidence, NUM_BINS)
    correct = np.bincount(bins, right, NUM_BINS)
    divisor = np.where(count, count, np.nan)
    return Calibration(
        count=count,
        confidence=summed / divisor,
        accuracy=correct / divisor,
        error=float(np.abs(correct - summed).sum() / len(labels)),
    )


def confident_mistakes(
    probabilities: np.ndarray, labels: np.ndarray, count: int
) -> np.ndarray:
    """Returns which pictures are predicted wrong, the most confident first.

    Args:
        probabilities: float [n, classes].
        labels: int [n].
        count: how many at most.

    Returns:
        indices, int [at most count].
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:count]]


def predict(
    model: nn.Module,
    params: Any,
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
) -> np.ndarray:
    """Returns the softmax of the logits of every picture, as evaluation sees it.

    Args:
        model: a network of `cnnjax.models`.
        params: its parameters.
        split: the pictures.
        preprocessing: crop and normalisation; its distortions are not applied.
        batch_size: pictures at a time.

    Returns:
        probabilities, float32 [n, classes].
    """

    @jax.jit
    def probabilities(params: Any, images: jax.Array) -> jax.Array:
        views = augment.standard_view(images, preprocessing)
        logits: Any = model.apply({"params": params}, views)
        return jax.nn.softmax(logits)

    found = [
        jax.device_get(probabilities(params, batch["image"]))
        for batch in padded_batches(split, batch_size)
    ]
    return np.concatenate(found)[: len(split.labels)]


def feature_maps(
    model: nn.Module, params: Any, image: np.ndarray, preprocessing: Preprocessing
) -> dict[str, np.ndarray]:
    """Returns what the layers make of one picture, where that is maps.

    A convolution's maps are those after the pooling that it ends with, before the
    activation; the names are the layers' own, in the order of the network.

    Args:
        model: a network of `cnnjax.models`.
        params: its parameters.
        image: uint8 [height, width, channels].
        preprocessing: crop and normalisation; its distortions are not applied.

    Returns:
        name -> float32 [height', width', channels'].
    """
    names: list[str] = []

    @jax.jit
    def forward(params: Any, images: jax.Array) -> list[jax.Array]:
        _, state = model.apply(
            {"params": params},
            augment.standard_view(images, preprocessing),
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        maps = []
        for name, found in state["intermediates"].items():
            (values,) = found["__call__"] if isinstance(found, dict) else found
            if values.ndim == 4 and values[0, :, :, 0].size > 1:
                # Here, as what is returned comes in the order of the alphabet.
                names.append(name)
                maps.append(values[0].astype(jnp.float32))
        return maps

    maps = jax.device_get(forward(params, jnp.asarray(image[None])))
    return dict(zip(names, maps, strict=True))


def first_filters(params: Any) -> np.ndarray | None:
    """Returns the kernel of the first convolution, [height, width, in, out].

    Args:
        params: of a network of `cnnjax.models`.

    Returns:
        float32, or None where the network has no convolution.
    """
    for name in ("conv1", "C1"):
        if name in params:
            return np.asarray(params[name]["kernel"], np.float32)
    return None


def distorted(
    image: np.ndarray, preprocessing: Preprocessing, *, seed: int, count: int
) -> np.ndarray:
    """Returns one picture as the first `count` positions of a run would distort it.

    Args:
        image: uint8 [height, width, channels].
        preprocessing: crop and distortions; pixels are not normalised.
        seed: of the run.
        count: how many.

    Returns:
        float32 [count, height', width', channels], in [0, 1] but for what brightness
        and contrast carry beyond it.
    """
    shown = dataclasses.replace(preprocessing, normalise="unit")
    positions = jnp.arange(count, dtype=jnp.uint32)
    key = prng.from_seed(seed, prng.DATA)
    drawn = augment.draw(key, positions, shown, image.shape)
    images = jnp.asarray(np.repeat(image[None], count, axis=0))
    apply = jax.jit(partial(augment.apply, preprocessing=shown))
    return np.asarray(apply(images, drawn))
