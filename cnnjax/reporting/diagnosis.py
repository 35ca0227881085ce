"""Diagnoses a trained network: predictions, calibration, mistakes, feature maps."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import prng
from cnnjax.data import augment
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.evaluation import padded_batches
from cnnjax.models.forward import Variables, forward, intermediates
from cnnjax.recipe import Recipe

# M = 15 bins, as in the experiments of Guo et al. 2017.
NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Accuracy as a function of confidence, in bins of equal width.

    Bin m of M has the pictures whose confidence is in ((m - 1) / M, m / M].

    Attributes:
        count: number of pictures in each bin, int [bins].
        confidence: their mean confidence, float [bins]; NaN for an empty bin.
        accuracy: their accuracy, float [bins]; NaN for an empty bin.
        error: the expected calibration error (ECE), in [0, 1].
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibrate(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """Compares the accuracy of predictions with their confidence, the top probability.

    ECE = sum_m count_m / n * |accuracy_m - confidence_m|

    Args:
        probabilities: float [n, classes], n at least 1.
        labels: int [n].

    Source: Guo, Pleiss, Sun, Weinberger 2017, equations 2 to 5.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, NUM_BINS + 1)
    # A probability of 1 may be slightly larger because of rounding.
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
    """Returns the indices of at most `count` wrong predictions, most confident first.

    `probabilities` is float [n, classes], and `labels` int [n].
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:count]]


def predict(
    recipe: Recipe, variables: Variables, split: Split, batch_size: int
) -> np.ndarray:
    """Returns each picture's class probabilities, float32 [n, classes].

    Pictures are cropped and normalised as in evaluation, without distortions.
    """

    @jax.jit
    def probabilities(variables: Variables, images: jax.Array) -> jax.Array:
        views = augment.standard_view(images, recipe.preprocessing)
        logits, _ = forward(recipe.model, variables, views)
        return jax.nn.softmax(logits.astype(jnp.float32))

    found = [
        jax.device_get(probabilities(variables, batch["image"]))
        for batch in padded_batches(split, batch_size)
    ]
    return np.concatenate(found)[: len(split.labels)]


def feature_maps(
    recipe: Recipe, variables: Variables, image: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the feature maps of one picture, in the order of the network's layers.

    A convolution's maps are those after its pooling, before the activation. The uint8
    picture is cropped and normalised as in evaluation, without distortions.

    Returns:
        name of the layer -> float32 [height', width', channels'].
    """
    names: list[str] = []

    @jax.jit
    def maps_of(variables: Variables, images: jax.Array) -> list[jax.Array]:
        found = intermediates(
            recipe.model, variables, augment.standard_view(images, recipe.preprocessing)
        )
        maps = []
        for name, values in found.items():
            if values.ndim == 4 and values[0, :, :, 0].size > 1:
                # Noted here, because a jitted function returns dicts sorted by key.
                names.append(name)
                maps.append(values[0].astype(jnp.float32))
        return maps

    maps = jax.device_get(maps_of(variables, jnp.asarray(image[None])))
    return dict(zip(names, maps, strict=True))


def distorted(
    image: np.ndarray, preprocessing: Preprocessing, *, seed: int, count: int
) -> np.ndarray:
    """Distorts a uint8 picture as the first `count` positions of a run would.

    Returns:
        float32 [count, height', width', channels]; black is 0 and white 1, which
        brightness and contrast may exceed.
    """
    shown = dataclasses.replace(preprocessing, normalise="unit")
    positions = jnp.arange(count, dtype=jnp.uint32)
    key = prng.from_seed(seed, prng.DATA)
    drawn = augment.draw(key, positions, shown, image.shape)
    images = jnp.asarray(np.repeat(image[None], count, axis=0))
    apply = jax.jit(partial(augment.apply, preprocessing=shown))
    return np.asarray(apply(images, drawn))
