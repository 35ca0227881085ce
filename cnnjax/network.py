"""A trained network to predict with: loaded from a run, without its data set."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import config as configs
from cnnjax import losses
from cnnjax.data import augment
from cnnjax.errors import InputError
from cnnjax.models.forward import Variables, forward
from cnnjax.run import abstract_state, of_one_seed, recipe_of, restore
from cnnjax.workdir import files

Function = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network and what it takes to use it.

    Attributes:
        model: a Linen module.
        variables: its parameters and other collections; of several seeds, every array
            leads with [num_seeds].
        num_seeds: how many networks they are, whose probabilities are averaged.
        seed_index: which network of a run of several seeds; -1 for all of them.
        weights: which they are: "params", or "ema_params" where the run keeps an
            average.
        step: updates that they have seen.
        preprocessing: crop and normalisation.
        image_shape: (height, width, channels) of the pictures before the crop; they
            are square, grey or RGB.
        class_names: in the order of the outputs.
        dataset: the name of what it was trained on.
    """

    model: nn.Module
    variables: Variables
    num_seeds: int
    seed_index: int
    weights: str
    step: int
    preprocessing: augment.Preprocessing
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    dataset: str

    def logits(self, images: jax.Array) -> jax.Array:
        """Returns the logits of pictures, which are preprocessed as in evaluation.

        Of several networks, the logarithm of their mean probabilities. A pure function,
        whose batch may be symbolic.

        Args:
            images: uint8 or float32 [batch, height, width, channels], in [0, 255].

        Returns:
            float32 [batch, num_classes].
        """
        view = augment.standard_view(images, self.preprocessing)

        def of_one(variables: Variables) -> jax.Array:
            return forward(self.model, variables, view)[0]

        if self.num_seeds == 1:
            return of_one(self.variables)
        return losses.log_mean_softmax(jax.lax.map(of_one, self.variables))

    def probabilities(self, images: jax.Array) -> jax.Array:
        """Returns the softmax of `logits`."""
        return jax.nn.softmax(self.logits(images))

    def saliency(self, images: jax.Array) -> jax.Array:
        """Returns how much each pixel moves the logit of the likeliest class.

        out[n, i, j] = max_k |d max_c logits[n, c] / d images[n, i, j, k]|

        Args:
            images: as for `logits`.

        Returns:
            float32 [batch, height, width], in units of the logit for each step of a
            pixel in [0, 255]; zero outside the crop.

        Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks",
        2014, section 3.1.
        """

        def total(images: jax.Array) -> jax.Array:
            # Each picture moves its own logits only, so one gradient gives them all.
            return jnp.sum(jnp.max(self.logits(images), axis=-1))

        grads = jax.grad(total)(images.astype(jnp.float32))
        return jnp.max(jnp.abs(grads), axis=-1)

    def predict(self, images: np.ndarray, batch_size: int = 100) -> np.ndarray:
        """Returns the probabilities of the classes, computed in batches.

        Args:
            images: uint8 [n, height, width, channels], of `image_shape`, n at least 1.
            batch_size: pictures at a time, at most.

        Returns:
            float32 [n, num_classes].

        Raises:
            ValueError: the pictures are of another shape or type.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"got pictures {images.dtype} {list(images.shape)}, need uint8"
                f" {['n', *self.image_shape]} in [0, 255]; convert or resize them"
            )
        return in_batches(self.probabilities, images, batch_size)


def load_network(workdir: str | Path, seed_index: int = -1) -> Network:
    """Returns the network of a run's newest checkpoint; the run is left as it is.

    Its configuration is read from `config.json` as data, and its data set is not
    needed. Where the run keeps an average of the weights, that is what is used.

    Args:
        workdir: of the run.
        seed_index: which network of a run of several seeds, from 0; -1 for all of them.

    Raises:
        InputError: `workdir` is not of a run, has no checkpoint or fewer seeds, or its
            pictures are not square and grey or RGB.
        RunError: no checkpoint is good.
    """
    workdir = Path(workdir)
    config = configs.from_stored(files.read_json(workdir / files.CONFIG))
    data = files.trained_on(workdir)
    image_shape = _image_shape(workdir, data.get("image_shape"))
    recipe = recipe_of(config, len(data["classes"]))
    if seed_index < -1:
        raise InputError(
            f"got seed_index={seed_index}, need one from 0 on, or -1 for all"
        )
    num_seeds = config.num_seeds
    state = restore(workdir, abstract_state(recipe, image_shape, num_seeds))
    if seed_index >= 0:
        state, num_seeds = of_one_seed(state, seed_index), 1
    return Network(
        model=recipe.model,
        variables=state.ema_variables or state.variables,
        weights="params" if state.ema_params is None else "ema_params",
        num_seeds=num_seeds,
        seed_index=seed_index,
        step=int(np.ravel(state.step)[0]),
        preprocessing=recipe.preprocessing,
        image_shape=image_shape,
        class_names=tuple(data["classes"]),
        dataset=data["name"],
    )


def _image_shape(workdir: Path, stored: Any) -> tuple[int, int, int]:
    if (
        not isinstance(stored, list)
        or len(stored) != 3
        or not all(isinstance(size, int) and size > 0 for size in stored)
    ):
        raise InputError(
            f"{workdir / files.MANIFEST} has image_shape={stored!r} of its data, need"
            " [height, width, channels]; train the run with this version"
        )
    height, width, channels = stored
    if height != width or channels not in (1, 3):
        raise InputError(
            f"{workdir} was trained on pictures of {height}x{width}x{channels}, need"
            " square ones, grey or RGB, for pictures from files; name another run"
        )
    return height, width, channels


def in_batches(
    function: Callable[[Any], Any], images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Returns `function(images)`, computed on batches of one size.

    Args:
        function: from [batch, ...] to [batch, ...], each example by itself.
        images: [n, ...], n at least 1.
        batch_size: at most so many at a time; the last batch is filled up with zeros.
    """
    size = min(batch_size, len(images))
    compiled = jax.jit(function)
    found = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padding = [(0, size - len(batch)), *[(0, 0)] * (images.ndim - 1)]
        found.append(np.asarray(compiled(np.pad(batch, padding)))[: len(batch)])
    return np.concatenate(found)
