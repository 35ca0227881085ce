"""A trained network for predictions, loaded without its data set.

It is that of a run, of a file of exported weights, or one of those that come trained.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from flax import traverse_util

from cnnjax import config as configs
from cnnjax import loading, losses
from cnnjax.data import augment
from cnnjax.errors import InputError
from cnnjax.models.forward import Variables, forward, init_variables
from cnnjax.runtime import environment
from cnnjax.workdir import exports, files

Function = Callable[[jax.Array], jax.Array]

# Networks that come trained, as exported weights; a checkout has them.
PRETRAINED = Path(__file__).parents[1] / "experiments" / "pretrained"
WEIGHTS = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network, or several whose probabilities are averaged.

    Attributes:
        model: a Linen module.
        variables: its parameters and other collections; with several seeds, every array
            leads with [num_seeds].
        num_seeds: number of networks.
        seed_index: which network of a run of several seeds; -1 for all of them.
        weights: "params", or "ema_params" for their moving average.
        step: number of updates after which they were saved.
        preprocessing: crop and normalisation.
        image_shape: (height, width, channels) of images before the crop; they are
            square, grey or RGB.
        class_names: in the order of the outputs.
        dataset: name of the data set that it was trained on.
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
        """Returns the logits, float32 [batch, num_classes]; a pure function.

        Several networks give the logarithm of their mean probabilities. `images` are
        uint8 or float32 [batch, height, width, channels] in [0, 255]; they are
        preprocessed as in evaluation, and the batch size may be symbolic.
        """
        view = augment.standard_view(images, self.preprocessing)

        def of_one(variables: Variables) -> jax.Array:
            return forward(self.model, variables, view)[0].astype(jnp.float32)

        if self.num_seeds == 1:
            return of_one(self.variables)
        return losses.log_mean_softmax(jax.lax.map(of_one, self.variables))

    def probabilities(self, images: jax.Array) -> jax.Array:
        """Returns the softmax of `logits`."""
        return jax.nn.softmax(self.logits(images))

    def saliency(self, images: jax.Array) -> jax.Array:
        """Returns how much each pixel changes the logit of the likeliest class.

        out[n, i, j] = max_k |d max_c logits[n, c] / d images[n, i, j, k]|, float32
        [batch, height, width], in logits per grey level in [0, 255]; zero outside the
        crop. `images` are as for `logits`.

        Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks",
        2014, section 3.1.
        """

        def total(images: jax.Array) -> jax.Array:
            # An image affects only its own logits, so one gradient serves the batch.
            return jnp.sum(jnp.max(self.logits(images), axis=-1))

        grads = jax.grad(total)(images.astype(jnp.float32))
        return jnp.max(jnp.abs(grads), axis=-1)

    def predict(self, images: npt.ArrayLike, batch_size: int = 100) -> np.ndarray:
        """Returns the class probabilities, float32 [n, num_classes].

        `images` are uint8 [n, *image_shape], n at least 1, and are computed in batches.

        Raises:
            ValueError: the images are of another shape or type, or there is none.
        """
        images = np.asarray(images)
        fit = images.dtype == np.uint8 and images.shape[1:] == self.image_shape
        if not fit or not len(images):
            raise ValueError(
                f"got pictures {images.dtype} {list(images.shape)}, need uint8"
                f" {['n', *self.image_shape]} in [0, 255], n at least 1;"
                f" {'convert or resize them' if images.size else 'give one at least'}"
            )
        return in_batches(self._same, images, batch_size)

    @functools.cached_property
    def _same(self) -> Function:
        """`probabilities`, the same object each time: JAX compiles another one anew."""
        return self.probabilities


def load_network(workdir: str | Path, seed_index: int = -1) -> Network:
    """Returns a trained network, without changing what it is loaded from.

    `workdir` is the folder of a run, a `.safetensors` file that `export.py` wrote,
    or the name of a network that comes trained ("cifar10", "mnist"). Of a run it is the
    newest checkpoint, with the moving average of the weights if the run keeps one. Of
    several seeds, `seed_index` picks one network, from 0; -1 takes all of them.

    Raises:
        InputError: there is no such run, file or name, it has no checkpoint or fewer
            seeds, or its images are not square and grey or RGB.
        RunError: no checkpoint is intact.

    Example:
        >>> network = cj.load_network("mnist")
        >>> image = cj.load_dataset("digits").test.images[:1]
        >>> network.class_names[network.predict(image)[0].argmax()]
        '5'
    """
    if seed_index < -1:
        raise InputError(
            f"got seed_index={seed_index}, need one from 0 on, or -1 for all"
        )
    path = Path(os.path.expanduser(workdir))
    if not (path / files.CONFIG).exists() and pretrained_path(str(workdir)).exists():
        path = pretrained_path(str(workdir))
    if not path.exists():
        names = sorted(found.stem for found in PRETRAINED.glob(f"*{WEIGHTS}"))
        raise InputError(
            f"got {workdir}, need the folder of a run, a {WEIGHTS} file that export.py"
            f" wrote, or one of {', '.join(names) or 'the names that a checkout has'}"
        )
    return (_of_file if path.suffix == WEIGHTS else _of_run)(path, seed_index)


def pretrained_path(name: str) -> Path:
    """Returns the path of the weights of the network of that name that comes trained.

    They need not exist.
    """
    return PRETRAINED / f"{name}{WEIGHTS}"


def _of_run(workdir: Path, seed_index: int) -> Network:
    # Training and checkpoints are a third of the time that importing this file takes.
    from cnnjax.run import abstract_state, of_one_seed, recipe_of, restore

    config = configs.from_stored(files.read_json(workdir / files.CONFIG))
    data = files.trained_on(workdir)
    image_shape = _image_shape(workdir / files.MANIFEST, data.get("image_shape"))
    recipe = recipe_of(config, len(data["classes"]))
    num_seeds = config.num_seeds
    with environment.pinned():  # the states of runs have 32 bits
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


def _of_file(path: Path, seed_index: int) -> Network:
    content, card = exports.read(path)
    try:
        flat = safetensors.numpy.load(content)
        config = configs.from_stored(card["config"])
        image_shape = _image_shape(exports.card_path(path), card["input"]["shape"][1:])
        num_seeds, step, weights = card["networks"], card["step"], card["weights"]
        one = card["seed_index"]
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise exports.NotAnExportError(path, reason) from error
    model = loading.make_model(config, len(card["classes"]))
    data = config.data
    preprocessing = augment.Preprocessing(data.crop, data.distortions, data.normalise)
    _check_fits(path, flat, model, preprocessing.output_shape(image_shape), num_seeds)
    if seed_index >= num_seeds:
        raise InputError(
            f"got seed_index={seed_index}, need 0 to {num_seeds - 1}: {path} has"
            f" {num_seeds} networks; name one of them"
        )
    if seed_index >= 0 and num_seeds > 1:
        flat, num_seeds = {name: value[seed_index] for name, value in flat.items()}, 1
    return Network(
        model=model,
        variables=traverse_util.unflatten_dict(flat, sep="."),
        weights=weights,
        num_seeds=num_seeds,
        seed_index=seed_index if card["networks"] > 1 else one,
        step=step,
        preprocessing=preprocessing,
        image_shape=image_shape,
        class_names=tuple(card["classes"]),
        dataset=card["dataset"]["name"],
    )


def _check_fits(
    path: Path,
    flat: dict[str, np.ndarray],
    model: nn.Module,
    input_shape: tuple[int, int, int],
    num_seeds: int,
) -> None:
    """Raises InputError if a file's arrays are not those of the network."""
    make = partial(init_variables, model, image_shape=input_shape)
    lead = () if num_seeds == 1 else (num_seeds,)
    needed = {
        name: (*lead, *leaf.shape)
        for name, leaf in traverse_util.flatten_dict(
            jax.eval_shape(make, jax.random.key(0)), sep="."
        ).items()
    }
    found = {name: value.shape for name, value in flat.items()}
    for name in sorted(needed.keys() | found.keys()):
        if needed.get(name) != found.get(name):
            raise exports.NotAnExportError(
                path,
                f"{name} is {found.get(name, 'missing')}, and {type(model).__name__}"
                f" needs {needed.get(name, 'no such array')}",
            )


def _image_shape(path: Path, stored: Any) -> tuple[int, int, int]:
    if (
        not isinstance(stored, list)
        or len(stored) != 3
        or not all(isinstance(size, int) and size > 0 for size in stored)
    ):
        raise InputError(
            f"{path} has image_shape={stored!r} of its data, need [height, width,"
            " channels]; train the run with this version"
        )
    height, width, channels = stored
    if height != width or channels not in (1, 3):
        raise InputError(
            f"{path.parent} was trained on pictures of {height}x{width}x{channels},"
            " need square ones, grey or RGB, for pictures from files; name another run"
        )
    return height, width, channels


def in_batches(
    function: Callable[[Any], Any], images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Returns `function(images)`, computed on batches of one size.

    `function` maps each example of a batch by itself; there is at least one image. The
    last batch is padded with zeros. Fewer images make a batch of a power of two, and so
    few sizes are compiled.
    """
    size = min(batch_size, 1 << (len(images) - 1).bit_length())
    compiled = jax.jit(function)
    found = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padding = [(0, size - len(batch)), *[(0, 0)] * (images.ndim - 1)]
        found.append(np.asarray(compiled(np.pad(batch, padding)))[: len(batch)])
    return np.concatenate(found)
