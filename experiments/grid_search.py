"""A grid over fields of a configuration, judged on the validation split alone."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import config as configs
from cnnjax import launch
from cnnjax.errors import InputError, RunError
from cnnjax.metrics import mean_of
from cnnjax.runtime.signals import StopRequestedError
from cnnjax.workdir import files, integrity

RESULTS = "search.json"
# What a run is ranked by: the average's figure where one is kept, else the weights'.
RANKED_BY = ("val_ema/accuracy", "val/accuracy")


def parse_grid(vary: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the points of a grid: the product of the values of each field.

    Args:
        vary: each FIELD=VALUES, the values a JSON list: optim.l2=[0.004, 0].

    Raises:
        InputError: one is not of that form, or a field is there twice.
    """
    fields: dict[str, list[Any]] = {}
    for text in vary:
        name, _, values = text.partition("=")
        try:
            listed = json.loads(values)
        except ValueError:
            listed = None
        if not isinstance(listed, list) or not listed or name in fields:
            raise InputError(
                f"got --vary={text}, need FIELD=[VALUE, ...] with JSON's values, each"
                " field once, such as --vary='optim.learning_rate=[1e-3, 2e-3]'"
            )
        fields[name] = [tuple(v) if isinstance(v, list) else v for v in listed]
    return [
        dict(zip(fields, values, strict=True))
        for values in itertools.product(*fields.values())
    ]


def changed(config: ConfigDict, point: Mapping[str, Any]) -> ConfigDict:
    """Returns the configuration at a point of the grid, validated.

    Raises:
        InputError: it has no such field, or not with such a value.
    """
    config = config.copy_and_resolve_references()
    for name, value in point.items():
        *sections, leaf = name.split(".")
        section = config
        for part in sections:
            section = section.get(part) if isinstance(section, ConfigDict) else None
        if not isinstance(section, ConfigDict) or leaf not in section:
            raise InputError(
                f"the configuration has no field {name}; cnnjax/config.py lists them"
            )
        whole = isinstance(value, int) and isinstance(section[leaf], float)
        with section.ignore_type():
            section[leaf] = float(value) if whole else value
    configs.validate(config)
    return config.lock()


def run(
    config: ConfigDict,
    vary: Sequence[str],
    folder: Path,
    *,
    default_name: str,
    fallback: str,
) -> None:
    """Trains every point of the grid in a folder of its own; prints and writes a table.

    A point that is finished is not trained again, and one that was stopped goes on, so
    that grids of one configuration add up in a folder. The test set is not opened.

    Args:
        config: what the grid changes; it holds validation pictures out.
        vary: see `parse_grid`.
        folder: of the runs and of `search.json`, which lists all that are finished.
        default_name: see `experiment.train`.
        fallback: as there.

    Raises:
        InputError: the grid or a point of it is bad, or would need the test set; or
            another search is in `folder`.
        RunError: no point could be trained to its end.
    """
    points = [(point, changed(config, point)) for point in parse_grid(vary)]
    names: dict[str, Mapping[str, Any]] = {}
    for point, at in points:
        _check_blind(at)
        other = names.setdefault(_name(at), point)
        if other is not point:
            raise InputError(
                f"got {json.dumps(other)} and {json.dumps(point)}, need points that"
                " train differently; leave one out"
            )
    failed = []
    with files.locked(folder, "workdir"):
        for number, (point, at) in enumerate(points, start=1):
            print(f"run {number} of {len(points)}: {json.dumps(point)}", flush=True)
            try:
                launch.train(
                    at,
                    folder / _name(at),
                    default_name=default_name,
                    fallback=fallback,
                    with_test=False,
                )
            except StopRequestedError:
                raise
            except RunError as error:  # such as a rate too high; the others need not be
                failed.append(f"failed: {json.dumps(point)}: {error}")
                print(failed[-1], flush=True)
                continue
            files.write_json(folder / RESULTS, collect(folder, config))
    if len(failed) == len(points):
        raise RunError(failed[-1])
    print("\n".join([table(collect(folder, config)["runs"]), *failed]))
    print(f"wrote {folder / RESULTS}")


def _check_blind(config: ConfigDict) -> None:
    if not config.data.val_examples:
        raise InputError(
            "got data.val_examples=0, need a validation split to search with, as the"
            " test set is not for that; set --config.data.val_examples=5000"
        )
    if config.parallel.distributed:
        raise InputError(
            "got parallel.distributed=True, need False, as processes are joined for one"
            " run; search on one host"
        )
    if config.train.report:
        raise InputError(
            "got train.report=True, need False, as a report opens the test set; write"
            " one with report.py of the run that is chosen"
        )


def _name(config: ConfigDict) -> str:
    fixed = {
        name: value
        for name, value in files.flatten(config.to_dict()).items()
        if name not in files.MAY_CHANGE or name == "train.steps"
    }
    return integrity.seal(fixed)[:12]


def collect(folder: Path, config: ConfigDict) -> dict[str, Any]:
    """Returns what is known of the finished runs in `folder`, the best first.

    Args:
        folder: of a search.
        config: what the differing fields of each run are named against.
    """
    base = files.flatten(config.to_dict())
    found = []
    for path in sorted(folder.glob(f"*/{files.FINAL_METRICS}")):
        final, stored = (
            files.read_json(path),
            files.read_json(path.parent / files.CONFIG),
        )
        if "val/accuracy" not in final:
            continue  # a run proper, which is not compared by its test set
        about = files.read_json(path.parent / files.MANIFEST)
        flat = files.flatten(stored)
        fields = {k: v for k, v in sorted(flat.items()) if base.get(k) != v}
        found.append(
            {
                "run": path.parent.name,
                "changed": fields,
                **final,
                "commit": about["commit"],
                "machine": about["machine"],
                "versions": about["versions"],
            }
        )
    found.sort(key=_score, reverse=True)
    return {"config": base, "runs": found}


def _score(final: Mapping[str, Any]) -> float:
    key = next(key for key in RANKED_BY if key in final)
    return mean_of(final, key)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns the runs as lines: accuracy on the validation split, what was changed.

    Args:
        found: from `collect`.
    """
    lines = [f"{'val':>8} {'val_ema':>8}  changed"]
    for final in found:
        figures = [
            f"{mean_of(final, key):8.2%}" if key in final else f"{'':8}"
            for key in ("val/accuracy", "val_ema/accuracy")
        ]
        fields = ", ".join(f"{k}={v}" for k, v in final["changed"].items())
        lines.append(f"{' '.join(figures)}  {fields or '(nothing)'}")
    return "\n".join(lines)
