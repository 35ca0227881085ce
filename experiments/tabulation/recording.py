"""Recording finished runs in `results/runs.json`, by rows of the tables."""

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax import config as configs
from cnnjax.errors import InputError
from cnnjax.workdir import files

ROOT = Path(__file__).resolve().parents[2]
RUNS = "runs.json"
Run = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """A recipe, as the tables name it.

    Attributes:
        label: the configuration.
        table: the table of results/README.md that has the row.
        chapter: the accuracy that the chapter states for it.
    """

    label: str
    table: str
    chapter: str = ""


ROWS = {
    "base": Row("`base.py`", "networks", "about 73%"),
    "base on TensorFlow": Row("`base.py` in TensorFlow", "networks", "about 73%"),
    "fast": Row("`fast.py`", "recipes"),
    "best": Row("`best.py`", "recipes"),
    "long": Row("`long.py`", "recipes", "about 86%"),
    "long without distortions": Row("`long.py` without distortions", "recipes"),
    "long as the original": Row(
        "`long.py`, the rate constant as in the original", "recipes", "about 86%"
    ),
    "mnist": Row("`mnist.py`", "networks", "about 99.2%"),
    "mnist_augmented": Row("`mnist_augmented.py`", "networks"),
    "lenet5": Row("`lenet5.py`", "networks"),
    "lenet5 modern": Row("`lenet5.py`, modern", "networks"),
    "mlp": Row("`mlp.py`", "networks", "about 98%"),
}
VIEWS = 10
# Name of a curve -> key in `metrics.jsonl`.
CURVES = {"weights": "eval/accuracy", "average": "eval_ema/accuracy"}
# What a file of cifar10_tensorflow.py holds, and a record but for its row.
RECORDED = {
    *("command", "seeds", "network", "batch_size", "data", "final", "first_loss"),
    *("last_loss", "curve", "versions", "machine", "devices", "commit"),
}
# What all runs of a row have in common.
SHARED = ("network", "batch_size", "steps", "num_params", "data")


def record(path: Path) -> dict[str, Any]:
    """Returns what is recorded of a finished run, without its row.

    Paths of its command become relative to the repository's root, and its folder
    `runs/NAME`. Curves are of evaluations on the test set while it trained.

    Args:
        path: folder of the run, or a file that `cifar10_tensorflow.py` wrote.

    Raises:
        InputError: there is no run, or it is not finished.
    """
    if path.is_file():
        found = files.read_json(path)
        if not found.keys() >= RECORDED:
            raise InputError(
                f"got --add={path}, need a file with {', '.join(sorted(RECORDED))}, as"
                " cifar10_tensorflow.py writes with --out"
            )
        return found | {"command": _portable(found["command"])}
    if not path.is_dir():
        raise InputError(
            f"got --add={path}, found nothing there; need the folder of a finished run"
        )
    # Here and not above, so that --help need not wait for JAX.
    from chapter import past
    from cnnjax.reporting import curves

    config = configs.filled(files.read_json(path / files.CONFIG))
    final = files.finished(path, config)
    if final is None or "test/accuracy" not in final:
        raise InputError(
            f"got --add={path}, need a run that is finished and tested; call its"
            " command again, which goes on with it"
        )
    if config["eval.views"] not in (1, VIEWS):
        raise InputError(
            f"got --add={path} with eval.views={config['eval.views']}, need {VIEWS} or"
            " 1, as the tables have no other; train with --config.eval.views=10"
        )
    figures = past.figures(path)
    lines, _ = curves.read_metrics(path / files.METRICS)
    tested = [line for line in lines if line.get("eval/split") == "test"]
    variant = config.get("model.variant")
    data = files.trained_on(path)
    return {
        "command": _portable(figures["command"]),
        "seeds": [config["seed"] + k for k in range(config["num_seeds"])],
        "network": config["model.name"] + (f" ({variant})" if variant else ""),
        "batch_size": config["train.batch_size"],
        "data": {name: data[name] for name in ("name", "version", "fingerprint")},
        "final": final,
        "first_loss": figures["train/loss/first"],
        "last_loss": figures["train/loss/last"],
        "curve": {
            name: {str(line["step"]): line[key] for line in tested if key in line}
            for name, key in CURVES.items()
        },
        **{name: figures[name] for name in past.ABOUT if name != "command"},
    }


def _portable(command: Sequence[str]) -> str:
    program, script, *flags = command
    parts = [program, f"experiments/{Path(script).name}"]
    for flag in flags:
        name, _, value = flag.partition("=")
        if name in ("--workdir", "--out"):
            value = f"runs/{Path(value).name}"
        elif os.path.isabs(value):
            value = os.path.relpath(value, ROOT)
        parts.append(f"{name}={value}" if value else name)
    return shlex.join(parts)


def added(runs: Sequence[Run], new: Run) -> list[Run]:
    """Returns the runs with a new one, in the order of rows and seeds.

    Raises:
        InputError: there is no such row, the row has the seed already, or its other
            runs are of another network, data set, batch size or number of steps.
    """
    if new["row"] not in ROWS:
        raise InputError(
            f"got --row={new['row']}, need one of {', '.join(ROWS)}; a new row is added"
            " to ROWS in experiments/tabulation/recording.py"
        )
    for other in runs:
        if other["row"] != new["row"]:
            continue
        both = sorted({*other["seeds"]} & {*new["seeds"]})
        if both:
            raise InputError(
                f"got a run of {new['row']} with seed {both[0]}, which {RUNS} has"
                " already; take that one out, or add a run of another seed"
            )
        for name in SHARED:
            there, here = (
                one.get(name, one["final"].get(name)) for one in (other, new)
            )
            if there != here:
                raise InputError(
                    f"got a run of {new['row']} with {name} {here!r}, need {there!r} as"
                    " the others of that row; name its own row"
                )
    order = list(ROWS)
    return sorted([*runs, new], key=lambda r: (order.index(r["row"]), r["seeds"]))
