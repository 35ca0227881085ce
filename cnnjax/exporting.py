"""Exports a network to one file of StableHLO, which JAX runs without this package."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from cnnjax.errors import InputError
from cnnjax.metrics import SPREAD_SUFFIXES, of_seed
from cnnjax.network import Function, Network
from cnnjax.workdir import files

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
        "platforms": list(PLATFORMS),
        "versions": {"jax": jax.__version__, "training": stored.get("versions")},
    }


def card_path(path: Path) -> Path:
    """Returns the path of an export's card: that of the export with `.json` added."""
    return path.with_name(f"{path.name}.json")


def write(path: Path, exported: export.Exported, card: Mapping[str, Any]) -> None:
    """Writes an export to `path` and its card beside it, each atomically.

    The folder must exist. The export's SHA-256 is added to the card.
    """
    content = bytes(exported.serialize())
    digest = hashlib.sha256(content).hexdigest()
    unfinished = path.with_name(path.name + files.UNFINISHED)
    unfinished.write_bytes(content)
    unfinished.replace(path)
    files.write_json(card_path(path), {**card, "sha256": digest})


def load(path: Path) -> tuple[export.Exported, dict[str, Any]]:
    """Reads an export and its card.

    Returns:
        the export, whose `call` maps uint8 [batch, height, width, channels] to
        probabilities float32 [batch, num_classes]; and the card.

    Raises:
        InputError: one of the files is missing or was not written by `write`, or the
            export has another input or output.
    """
    try:
        content = path.read_bytes()
        card = json.loads(card_path(path).read_bytes())
        needed = (list(card["classes"]), card["sha256"], card["dataset"]["name"])
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}); need an export and"
            " its card beside it, as experiments/export.py writes them"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_one(card_path(path), "it is no card of an export") from error
    classes, digest, _ = needed
    if hashlib.sha256(content).hexdigest() != digest:
        raise _not_one(path, "its SHA-256 is not that of its card")
    try:
        exported = export.deserialize(bytearray(content))
    # Parsing the binary format raises assertions and errors of several packages.
    except Exception as error:
        raise _not_one(path, type(error).__name__) from error
    _check_takes_pictures(path, exported, len(classes))
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


def _not_one(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} cannot be read as an export ({reason}); need the file and its card as"
        " experiments/export.py wrote them; export the run again"
    )
