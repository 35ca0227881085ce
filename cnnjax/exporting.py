"""Exports a network to one file: a program in StableHLO, or its weights alone.

JAX runs the program without this package. The weights are in safetensors, which other
frameworks read too.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util
from jax import export

from cnnjax.errors import InputError
from cnnjax.metrics import SPREAD_SUFFIXES, of_seed
from cnnjax.network import Function, Network
from cnnjax.workdir import exports, files

PLATFORMS = ("cpu", "cuda")
BATCH = "batch"


def to_stablehlo(
    probabilities: Function, image_shape: tuple[int, int, int]
) -> export.Exported:
    """Returns `Network.probabilities`, lowered for all `PLATFORMS` and any batch size.

    It maps uint8 [batch, *image_shape] to float32 [batch, num_classes].
    """
    shape = export.symbolic_shape(", ".join([BATCH, *map(str, image_shape)]))
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    return export.export(jax.jit(probabilities), platforms=PLATFORMS)(images)


def to_safetensors(network: Network) -> bytes:
    """Returns the network's variables as the content of a safetensors file.

    An array's name is its path, such as "params.conv1.kernel", and its layout is
    Flax's: kernels of convolutions are [height, width, in, out], those of dense layers
    [in, out], where what comes from a convolution is flattened as [height, width,
    channels]. With several seeds every array leads with [num_seeds].
    """
    flat = traverse_util.flatten_dict(jax.device_get(network.variables), sep=".")
    arrays = {name: np.asarray(value, order="C") for name, value in flat.items()}
    return safetensors.numpy.save(arrays, metadata={"format": "flax"})


def card(network: Network, workdir: Path) -> dict[str, Any]:
    """Returns the card of an export: its input, output, origin and accuracy, as JSON.

    The accuracies are the final metrics of the run in `workdir` if they are of the same
    weights; otherwise, and for several averaged networks, there are none.
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
        "top_k": files.read_json(workdir / files.CONFIG)["eval"]["top_k"],
        "weights": network.weights,
        "networks": network.num_seeds,
        "seed_index": network.seed_index,
        "step": network.step,
        "versions": {"jax": jax.__version__, "training": stored.get("versions")},
        "config": files.read_json(workdir / files.CONFIG),
        "manifest": {k: v for k, v in stored.items() if k != "data"},
    }


def load(path: Path) -> tuple[export.Exported, dict[str, Any]]:
    """Reads an export and its card.

    Returns:
        the export, whose `call` maps uint8 [batch, height, width, channels] to
        probabilities float32 [batch, num_classes]; and the card.

    Raises:
        InputError: one of the files is missing, or the export has another input or
            output.
        NotAnExportError: one of them is damaged or something else.
    """
    content, card = exports.read(path)
    try:
        exported = export.deserialize(bytearray(content))
    # Parsing the binary format raises assertions and errors of several packages.
    except Exception as error:
        raise exports.NotAnExportError(path, type(error).__name__) from error
    _check_takes_pictures(path, exported, len(card["classes"]))
    return exported, card


def _check_takes_pictures(
    path: Path, exported: export.Exported, num_classes: int
) -> None:
    takes, gives = exported.in_avals, exported.out_avals
    if (
        len(takes) != 1
        or len(gives) != 1
        or takes[0].dtype != jnp.uint8
        or takes[0].ndim != 4
        or takes[0].shape[3] not in (1, 3)
        or takes[0].shape[1] != takes[0].shape[2]
        or gives[0].shape[1:] != (num_classes,)
    ):
        signature = f"{', '.join(map(str, takes))} -> {', '.join(map(str, gives))}"
        raise InputError(
            f"{path} maps {signature}, need uint8 [batch, side, side, 1 or 3] ->"
            f" float32 [batch, {num_classes}]; export the run again"
        )
