"""A finished or stopped run as a network that can be used."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax import assembly, exporting, inference, runs, spread
from cnnjax import config as configs
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError


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
    config = configs.from_stored(inference.stored_config(workdir))
    data = runs.trained_on(workdir)
    image_shape = _image_shape(workdir, data.get("image_shape"))
    recipe = assembly.make_recipe(config, len(data["classes"]))
    preprocessing = assembly.make_preprocessing(config)
    like = inference.abstract_state(
        recipe,
        num_seeds=config.num_seeds,
        image_shape=preprocessing.output_shape(image_shape),
    )
    if seed_index < -1:
        raise InputError(
            f"got seed_index={seed_index}, need one from 0 on, or -1 for all"
        )
    state = inference.restore(workdir, like)
    num_seeds = config.num_seeds
    if seed_index >= 0:
        state, num_seeds = inference.replica(state, seed_index), 1
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
    stored = runs.read_json(workdir / runs.MANIFEST)
    finished, accuracy = workdir / runs.FINAL_METRICS, {}
    if finished.exists():
        final = runs.read_json(finished)
        averaged = network.weights == "ema_params"
        if final.get("steps") == network.step and network.num_seeds == 1:
            accuracy = {
                name: value
                for name, value in spread.of_seed(final, network.seed_index).items()
                if name.startswith("test")
                and ("_ema/" in name) == averaged
                and not name.endswith(spread.SUFFIXES)
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
        "top_k": inference.stored_config(workdir)["eval"]["top_k"],
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
            f"{workdir / runs.MANIFEST} has image_shape={stored!r} of its data, need"
            " [height, width, channels]; train the run with this version"
        )
    height, width, channels = stored
    if height != width or channels not in (1, 3):
        raise InputError(
            f"{workdir} was trained on pictures of {height}x{width}x{channels}, need"
            " square ones, grey or RGB, for pictures from files; name another run"
        )
    return height, width, channels
