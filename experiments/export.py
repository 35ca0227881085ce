"""Exports a run's network to one file, as a program or as its weights.

python experiments/export.py --workdir=runs/base --to=cifar.stablehlo
python experiments/export.py --workdir=runs/base --to=cifar.safetensors

--workdir=DIR     folder of a run: its newest checkpoint, averaged weights if it has any
--to=FILE         the file to write; its card, which describes input and output, is
                  FILE.json. With the suffix .safetensors it holds the weights, with
                  any other a program in StableHLO for CPU and CUDA
--seed_index=K    the K-th network of a run of several seeds, from 0 [all: their
                  probabilities averaged, or every one's weights]
"""

from pathlib import Path

from cnnjax import cli
from cnnjax.errors import InputError
from cnnjax.runtime import backend
from cnnjax.workdir import files


def run(arguments: list[str], *, workdir: str, to: str, seed_index: int) -> None:
    """Writes the export and its card, and prints their paths.

    Raises:
        InputError: a flag is missing, or the file cannot be written.
    """
    del arguments  # there are none
    path = Path(to)
    if not workdir or not to:
        raise InputError(
            f"got --workdir={workdir!r} and --to={to!r}, need the folder of a run and"
            " the file to write; give both"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"got --to={to}, need a file in a folder that exists; name another"
        )
    backend.start()
    # Imported here, so that --help does not wait for JAX.
    from cnnjax import exporting
    from cnnjax.network import WEIGHTS, load_network
    from cnnjax.workdir import exports

    network = load_network(workdir, seed_index)
    card = exporting.card(network, Path(workdir))
    if path.suffix == WEIGHTS:
        content = exporting.to_safetensors(network)
    else:
        program = exporting.to_stablehlo(network.probabilities, network.image_shape)
        content = bytes(program.serialize())
        card["platforms"] = list(program.platforms)
    with files.writing(path, "to"):
        exports.write(path, content, card)
    print(f"{path} and {exports.card_path(path)} are written")


if __name__ == "__main__":
    cli.main_with(run, doc=__doc__, options={"workdir": "", "to": "", "seed_index": -1})
