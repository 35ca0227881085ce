"""Applies the trained networks of a run to pictures, seed by seed."""

import operator
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from chapter.past import Part, Run
from cnnjax.data import augment
from cnnjax.errors import RunError
from cnnjax.models.forward import Variables, forward
from cnnjax.network import Network, load_network

Look = Callable[[nn.Module, Variables, jax.Array], jax.Array]


def network_of(part: Part) -> Network:
    """Returns the networks of a part of a run that was trained with `weights=True`.

    Raises:
        RunError: the last checkpoint is damaged. An earlier one does not match the
            run's figures.
    """
    loaded = load_network(part.folder)
    steps = part.config.train.steps
    if loaded.step != steps:
        raise RunError(
            f"{part.folder}: the newest good checkpoint is of step {loaded.step}, need"
            f" {steps}; delete the folder and call the same command again"
        )
    return loaded


def weights_of(trained: Network) -> list[Variables]:
    """Returns the variables of each seed; a single one has no leading axis of seeds."""
    if trained.num_seeds == 1:
        return [trained.variables]
    seeds = map(operator.itemgetter, range(trained.num_seeds))
    return [jax.tree.map(of_seed, trained.variables) for of_seed in seeds]


def accuracies(run: Run, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns each seed's accuracy on the given pictures, float64 [seeds].

    Args:
        run: trained with `weights=True`.
        images: uint8 [n, height, width, channels], as large as the data set's.
        labels: int32 [n].
    """
    predicted = each_seed(run, images, _classes)
    return np.mean(predicted == labels, axis=1)


def _classes(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    return jax.numpy.argmax(forward(model, variables, images)[0], axis=-1)


def each_seed(
    run: Run, images: np.ndarray, look: Look, batch_size: int = 1000
) -> np.ndarray:
    """Applies `look` to every picture with every seed's weights.

    Args:
        run: trained with `weights=True`.
        images: uint8 [n, height, width, channels]; preprocessed as in evaluation.
        look: (model, variables, preprocessed images) -> array [batch, ...].
        batch_size: number of pictures per call of `look`.

    Returns:
        array [seeds, n, ...].
    """
    return np.concatenate(
        [_each_seed(network_of(part), images, look, batch_size) for part in run.parts]
    )


def _each_seed(
    trained: Network, images: np.ndarray, look: Look, batch_size: int
) -> np.ndarray:
    @jax.jit
    def see(variables: Variables, batch: jax.Array) -> jax.Array:
        fed = augment.standard_view(batch, trained.preprocessing)
        return look(trained.model, variables, fed)

    def of_seed(variables: Variables) -> np.ndarray:
        parts = range(0, len(images), batch_size)
        return np.concatenate(
            [np.asarray(see(variables, images[i : i + batch_size])) for i in parts]
        )

    return np.stack([of_seed(variables) for variables in weights_of(trained)])
