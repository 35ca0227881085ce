"""Applies the trained networks of a run to pictures, seed by seed."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from chapter.past import Run
from cnnjax import network
from cnnjax.data import augment
from cnnjax.errors import RunError


def network_of(run: Run) -> network.Trained:
    """Returns the networks of all seeds of a run that was trained with `weights=True`.

    Raises:
        RunError: the last checkpoint is damaged. An earlier one does not match the
            run's figures.
    """
    loaded = network.load(run.folder)
    steps = run.config.train.steps
    if loaded.step != steps:
        raise RunError(
            f"{run.folder}: the newest good checkpoint is of step {loaded.step}, need"
            f" {steps}; delete the folder and call the same command again"
        )
    return loaded


def accuracies(run: Run, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns each seed's accuracy on the given pictures, float64 [seeds].

    Args:
        run: trained with `weights=True`.
        images: uint8 [n, height, width, channels], as large as the data set's.
        labels: int32 [n].
    """
    predicted = each_seed(run, images, _classes)
    return np.mean(predicted == labels, axis=1)


def _classes(model: Any, params: Any, images: jax.Array) -> jax.Array:
    return jax.numpy.argmax(model.apply({"params": params}, images), axis=-1)


def each_seed(
    run: Run,
    images: np.ndarray,
    look: Callable[[Any, Any, jax.Array], jax.Array],
    batch_size: int = 1000,
) -> np.ndarray:
    """Applies `look` to every picture with every seed's weights.

    Args:
        run: trained with `weights=True`.
        images: uint8 [n, height, width, channels]; preprocessed as in evaluation.
        look: (model, params, preprocessed images) -> array [batch, ...].
        batch_size: number of pictures per call of `look`.

    Returns:
        array [seeds, n, ...].
    """
    network = network_of(run)

    @jax.jit
    def see(params: Any, batch: jax.Array) -> jax.Array:
        fed = augment.standard_view(batch, network.preprocessing)
        return look(network.model, params, fed)

    def of_seed(k: int) -> np.ndarray:
        params = jax.tree.map(lambda leaf: leaf[k], network.params)
        parts = range(0, len(images), batch_size)
        return np.concatenate(
            [np.asarray(see(params, images[i : i + batch_size])) for i in parts]
        )

    return np.stack([of_seed(k) for k in range(network.num_seeds)])
