"""Classifies pictures: each IMAGE file, and all pictures in each folder.

python experiments/predict.py cat.jpg photos/
python experiments/predict.py --workdir=runs/base cat.jpg photos/
python experiments/predict.py --pretrained=mnist --invert digit.png

--workdir=DIR     folder of a run: its newest checkpoint, averaged weights if it has any
--export=FILE     a file written by export.py, in place of --workdir
--pretrained=NAME one of the networks that come trained, cifar10 or mnist, in place of
                  both [cifar10]
--seed_index=K    the K-th network of a run of several seeds, from 0 [all, averaged]
--top_k=K         number of classes shown for each picture [3]
--json            prints one JSON object in place of the table
--saliency=DIR    folder for a map of each picture that shows which pixels matter for
                  the likeliest class: the gradient of its logit
--invert          for dark ink on white: inverts the pictures to light on black, as in
                  MNIST
"""

import sys
from pathlib import Path
from typing import Any

from cnnjax import cli
from cnnjax.errors import InputError
from cnnjax.runtime import backend

BATCH_SIZE = 100
PRETRAINED = "cifar10"  # where nothing else is named


def run(
    arguments: list[str],
    *,
    workdir: str,
    seed_index: int,
    export: str,
    pretrained: str,
    top_k: int,
    json: bool,
    saliency: str,
    invert: bool,
) -> None:
    """Prints the likeliest classes; names bad pictures and predicts the others.

    Raises:
        InputError: a flag is bad; or a picture is, after the others were printed.
    """
    if sum(map(bool, (workdir, export, pretrained))) > 1:
        raise InputError(
            f"got --workdir={workdir!r}, --export={export!r} and"
            f" --pretrained={pretrained!r}, need at most one of them; leave out others"
        )
    if not arguments or top_k < 1:
        raise InputError(
            f"got {len(arguments)} pictures and --top_k={top_k}, need at least one of"
            " each; name pictures or folders of them"
        )
    backend.start()
    # Imported here, so that --help does not wait for JAX.
    from cnnjax import exporting
    from cnnjax.data.sources import pictures
    from cnnjax.network import WEIGHTS, in_batches, load_network, pretrained_path
    from printing import predictions

    about: dict[str, Any]
    if export and not export.endswith(WEIGHTS):
        if saliency or seed_index != -1:
            raise InputError(
                f"got --saliency={saliency!r} and --seed_index={seed_index} with a"
                " program, need a run or exported weights for them; leave them out"
            )
        exported, card = exporting.load(Path(export))
        probabilities, saliencies = exported.call, None
        shape, names = exported.in_avals[0].shape[1:], card["classes"]
        about = {"export": export, "dataset": card["dataset"]["name"]}
    else:
        if not (workdir or export or pretrained):
            pretrained = PRETRAINED
            if not json:
                print(f"no run is named, so the network trained on {pretrained} says:")
        source = workdir or export or pretrained_path(pretrained)
        loaded = load_network(source, seed_index)
        probabilities, saliencies = loaded.probabilities, loaded.saliency
        shape, names = loaded.image_shape, loaded.class_names
        named = {"workdir": workdir, "export": export, "pretrained": pretrained}
        about = {
            **{flag: value for flag, value in named.items() if value},
            "dataset": loaded.dataset,
            "step": loaded.step,
            "weights": loaded.weights,
        }
    if invert and shape[2] != 1:
        raise InputError(
            "got --invert for a network of pictures in colour, need one of grey ones;"
            " leave it out"
        )
    paths, images, problems = pictures.read_all(
        [Path(argument) for argument in arguments],
        shape[0],
        "L" if shape[2] == 1 else "RGB",
    )
    if invert:
        images = 255 - images
    passed_over = [p for p in problems if isinstance(p, pictures.PassedOverError)]
    problems = [p for p in problems if not isinstance(p, pictures.PassedOverError)]
    if passed_over:
        first = ", ".join(map(str, passed_over[:3]))
        more = ", ..." if len(passed_over) > 3 else ""
        print(
            f"warning: passed over {len(passed_over)} files that are no pictures:"
            f" {first}{more}",
            file=sys.stderr,
        )
    if not paths and not problems:
        raise InputError("got folders without a picture, need one; name other folders")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if paths:
        found = in_batches(probabilities, images, BATCH_SIZE)
        results: list[dict[str, Any]] = [
            {"file": str(path), "top": predictions.top(row, names, top_k)}
            for path, row in zip(paths, found, strict=True)
        ]
        if saliency and saliencies is not None:
            maps = in_batches(saliencies, images, BATCH_SIZE)
            predictions.save_saliencies(Path(saliency), results, images, maps)
        show = predictions.print_json if json else predictions.print_table
        show(about, results)
    if problems:
        raise InputError(
            f"{len(problems)} of what was named could not be read, as said above;"
            f" {len(paths)} pictures were predicted; replace it or take it out"
        )


if __name__ == "__main__":
    cli.main_with(
        run,
        doc=__doc__,
        options={
            "workdir": "",
            "seed_index": -1,
            "export": "",
            "pretrained": "",
            "top_k": 3,
            "json": False,
            "saliency": "",
            "invert": False,
        },
        takes_arguments=True,
    )
