"""A finished or stopped run as a network that can be used."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import assembly, exporting, losses
from cnnjax import config as configs
from cnnjax.data import augment
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError
from cnnjax.metrics import SPREAD_SUFFIXES, of_seed
from cnnjax.state import TrainState, init_state
from cnnjax.updates import Recipe
from cnnjax.workdir import files
from cnnjax.workdir.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network and what it takes to use it.

    Attributes:
        model: a network of `cnnjax.models`.
        params: its parameters; of many seeds, every leaf leads with `num_seeds`.
        num_seeds: how many networks they are, whose probabilities are averaged.
        seed_index: which network of a run of many seeds; -1 for all of them.
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
    params: Any
    num_seeds: int
    seed_index: int
    weights: str
    step: int
    preprocessing: Preprocessing
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    dataset: str


def load(workdir: Path, seed_index: int = -1) -> Trained:
    """Returns the network of a run's newest checkpoint; the run is left as it is.

    Its configuration is read from `config.json` as data, and its data set is not
    needed. Where the run keeps an average of the weights, that is what is used.

    Args:
        workdir: of the run.
        seed_index: which network of a run of many seeds, from 0; -1 for all of them.

    Raises:
        InputError: `workdir` is not of a run, has no checkpoint or fewer seeds, or its
            pictures are not square and grey or RGB.
        RunError: no checkpoint is good.
    """
    config = configs.from_stored(stored_config(workdir))
    data = files.trained_on(workdir)
    image_shape = _image_shape(workdir, data.get("image_shape"))
    recipe = assembly.make_recipe(config, len(data["classes"]))
    preprocessing = assembly.make_preprocessing(config)
    like = abstract_state(
        recipe,
        num_seeds=config.num_seeds,
        image_shape=preprocessing.output_shape(image_shape),
    )
    if seed_index < -1:
        raise InputError(
            f"got seed_index={seed_index}, need one from 0 on, or -1 for all"
        )
    state = restore(workdir, like)
    num_seeds = config.num_seeds
    if seed_index >= 0:
        state, num_seeds = replica(state, seed_index), 1
    weights = "params" if state.ema_params is None else "ema_params"
    return Trained(
        model=recipe.model,
        params=getattr(state, weights),
        weights=weights,
        num_seeds=num_seeds,
        seed_index=seed_index,
        step=int(np.ravel(state.step)[0]),
        preprocessing=preprocessing,
        image_shape=image_shape,
        class_names=tuple(data["classes"]),
        dataset=data["name"],
    )


def card(network: Trained, workdir: Path) -> dict[str, Any]:
    """Returns what a reader of an exported network needs to know.

    Args:
        network: from `load`.
        workdir: of its run. The accuracies are those of its final metrics, where these
            are of the same weights; else there are none, and none of many networks
            whose probabilities are averaged.
    """
    stored = files.read_json(workdir / files.MANIFEST)
    finished, accuracy = workdir / files.FINAL_METRICS, {}
    if finished.exists():
        final = files.read_json(finished)
        averaged = network.weights == "ema_params"
        if final.get("steps") == network.step and network.num_seeds == 1:
            accuracy = {
                name: value
                for name, value in of_seed(final, network.seed_index).items()
                if name.startswith("test")
                and ("_ema/" in name) == averaged
                and not name.endswith(SPREAD_SUFFIXES)
            }
    return {
        "network": type(network.model).__name__,
        "input": {
            "shape": ["batch", *network.image_shape],
            "dtype": "uint8",
            "meaning": "pixels in [0, 255], as they are: what preprocessing says is"
            " done inside",
        },
        "output": {
            "shape": ["batch", len(network.class_names)],
            "dtype": "float32",
            "meaning": "probabilities of the classes",
        },
        "classes": list(network.class_names),
        "preprocessing": {
            "crop": network.preprocessing.crop,
            "normalise": network.preprocessing.normalise,
        },
        "dataset": {k: v for k, v in stored["data"].items() if k != "classes"},
        "accuracy": accuracy,
        "top_k": stored_config(workdir)["eval"]["top_k"],
        "weights": network.weights,
        "networks": network.num_seeds,
        "seed_index": network.seed_index,
        "step": network.step,
        "platforms": list(exporting.PLATFORMS),
        "versions": {"jax": jax.__version__, "training": stored.get("versions")},
    }


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


Function = Callable[[jax.Array], jax.Array]


def make_logits(
    model: nn.Module,
    params: Any,
    preprocessing: augment.Preprocessing,
    num_seeds: int = 1,
) -> Function:
    """Returns the function pictures -> logits, standardised as evaluation does.

    Of several networks, the logarithm of their mean probabilities.

    Args:
        model: a network of `cnnjax.models`.
        params: its parameters; of several networks, every leaf leads with `num_seeds`.
        preprocessing: crop and normalisation; its distortions are not applied.
        num_seeds: how many networks there are.

    Returns:
        A pure function of [batch, height, width, channels], pixels in [0, 255], uint8
        or float32; the result is float32 [batch, num_classes]. The batch may be
        symbolic.
    """

    def logits(images: jax.Array) -> jax.Array:
        view = augment.standard_view(images, preprocessing)

        def of_one(params: Any) -> jax.Array:
            return jnp.asarray(model.apply({"params": params}, view, dropout_keys=None))

        if num_seeds == 1:
            return of_one(params)
        return losses.log_mean_softmax(jax.lax.map(of_one, params))

    return logits


def make_probabilities(logits: Function) -> Function:
    """Returns the function pictures -> softmax of their logits."""
    return lambda images: jax.nn.softmax(logits(images))


def make_saliency(logits: Function) -> Function:
    """Returns the function pictures -> how much each pixel moves the likeliest class.

    out[n, i, j] = max_k |d max_c logits[n, c] / d images[n, i, j, k]|

    Args:
        logits: from `make_logits`.

    Returns:
        A function from uint8 [batch, height, width, channels] to float32 [batch,
        height, width], a logit for each step of a pixel in [0, 255]; zero outside the
        crop.

    Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2014,
    section 3.1.
    """

    def total(images: jax.Array) -> jax.Array:
        # Each picture moves its own logits only, so one gradient gives them all.
        return jnp.sum(jnp.max(logits(images), axis=-1))

    def saliency(images: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(jax.grad(total)(images.astype(jnp.float32))), axis=-1)

    return saliency


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


def stored_config(workdir: Path) -> dict[str, Any]:
    """Returns the nested configuration of a run; it is data, and never executed.

    Raises:
        InputError: `workdir` is not one of a run.
    """
    return files.read_json(workdir / files.CONFIG)


def restore(workdir: Path, like: TrainState, which: str = "latest") -> TrainState:
    """Returns the newest good state of a run, and leaves the run as it is.

    Args:
        workdir: of the run.
        like: a state of the same network and optimiser, from `init_state`.
        which: "latest", or "best": the highest accuracy on the validation split.

    Raises:
        InputError: the run has no such checkpoint, or is of another network, or its
            checkpoints are of another run.
        RunError: no such checkpoint is good.
    """
    directory = workdir / files.CHECKPOINTS
    restored = None
    if directory.is_dir():
        run = files.of_workdir(workdir)
        with Checkpoints(directory, run=run, read_only=True) as checkpoints:
            best = which == "best"
            read = checkpoints.restore_best if best else checkpoints.restore_latest
            restored = read(like)
    if restored is None:
        what = "checkpoint"
        if which == "best":
            what = "best checkpoint, which takes data.val_examples"
        raise InputError(
            f"{workdir} has no {what}: need a run that has saved one; let it train"
        )
    return restored[0]


def abstract_state(
    recipe: Recipe, *, num_seeds: int, image_shape: tuple[int, int, int]
) -> TrainState:
    """Returns what `restore` needs to know of a state; nothing is computed.

    Args:
        recipe: of the run.
        num_seeds: of the run; with more than one every leaf leads with it.
        image_shape: (height, width, channels) of what the network is fed.

    Returns:
        A state of shapes and dtypes, all of it on the first device.
    """
    make_state = partial(
        init_state,
        recipe.model,
        recipe.tx,
        seed=0,
        image_shape=image_shape,
        ema=recipe.ema_decay > 0,
    )
    lead = () if num_seeds == 1 else (num_seeds,)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state: TrainState = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (*lead, *leaf.shape), leaf.dtype, sharding=place
        ),
        jax.eval_shape(make_state),
    )
    return state


def replica(state: TrainState, k: int) -> TrainState:
    """Returns the k-th network of a run of many seeds, as a run of its seed has it.

    Args:
        state: from `restore`, with a `like` from `replicas.start_state`.
        k: from 0, which is all there is in a run of one seed.

    Raises:
        InputError: the run has fewer.

    Returns:
        The state without the leading [num_seeds], on the host.
    """
    num_seeds = state.step.size
    if not 0 <= k < num_seeds:
        raise InputError(
            f"got replica {k}, need 0 to {num_seeds - 1}: the run is of {num_seeds}"
            " seeds; name one of them"
        )
    state = jax.device_get(state)
    return state if np.ndim(state.step) == 0 else jax.tree.map(lambda x: x[k], state)


def check_same_classes(workdir: Path, class_names: tuple[str, ...], name: str) -> None:
    """Raises InputError where a run was trained on other classes than these.

    Args:
        workdir: of the run.
        class_names: of the data set at hand, in the order of its labels.
        name: of that data set.
    """
    trained = files.trained_on(workdir)
    if list(class_names) != trained["classes"]:
        raise InputError(
            f"got {name} with the classes {', '.join(class_names)}, need those of"
            f" {trained['name']}, which {workdir} was trained on:"
            f" {', '.join(trained['classes'])}; name such a data set"
        )
