"""Trains a grid of configurations and ranks them on the validation split.

python experiments/search.py --config=configs/fast.py --workdir=runs/search
    --config.data.val_examples=5000 --vary='optim.learning_rate=[1e-3, 2e-3]'

--vary=FIELD=[...]      values of a field, as a JSON list; given several times, all
                        combinations are run. The test set is not opened. What is
                        finished is not run again, and more runs can be added later:
                        search.json of the workdir lists them all, the best first
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import cli
from cnnjax import config as configs
from cnnjax.config.schema import FIELDS
from cnnjax.errors import InputError, RunError
from cnnjax.runtime import backend
from cnnjax.runtime.signals import StopRequestedError
from cnnjax.workdir import files, identity

DEFAULT_CONFIG = "configs/base.py"
RESULTS = "search.json"
# What a run is ranked by: the average's figure where one is kept, else the weights'.
RANKED_BY = ("val_ema/accuracy", "val/accuracy")


def run(config: ConfigDict, workdir: str, vary: Sequence[str]) -> None:
    """Trains every point of the grid in a folder of its own; prints and writes a table.

    A point that is finished is not trained again, and one that was stopped goes on, so
    that grids of one configuration add up in a folder. The test set is not opened.

    Args:
        config: what the grid changes; it holds validation pictures out.
        workdir: folder of the runs and of `search.json`, which lists all that are
            finished; "" for a folder of its own under `runs`.
        vary: see `parse_grid`.

    Raises:
        InputError: the grid or a point of it is bad, or would need the test set; or
            another search is in `workdir`.
        RunError: no point could be trained to its end.
    """
    backend.start(
        compile_cache=config.compile_cache, deterministic=config.deterministic
    )
    # Here and not above, so that --help need not wait for JAX.
    from cnnjax import launch

    points = named(config, parse_grid(vary))
    where = workdir or launch.default_workdir(f"search-{cli.name(DEFAULT_CONFIG)}")
    folder, failed = Path(where), []
    with files.locked(folder, "workdir"):
        earlier = _by_name(folder)
        for number, (name, point) in enumerate(points.items(), start=1):
            name = earlier.get(name, name)
            print(f"run {number} of {len(points)}: {json.dumps(point)}", flush=True)
            try:
                launch.train(changed(config, point), folder / name, with_test=False)
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
        fields[name] = [configs.sequences_as(tuple, v) for v in listed]
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
                f"the configuration has no field {name}; cnnjax/config/schema.py lists"
                " them"
            )
        if isinstance(value, bool) and not isinstance(section[leaf], bool):
            raise InputError(  # a number's field would take it for 1 or 0
                f"got {name}={value}, need a value such as {section[leaf]!r}; correct"
                " --vary"
            )
        if isinstance(value, int) and isinstance(section[leaf], float):
            value = float(value)
        if isinstance(value, str) and isinstance(section[leaf], tuple):
            value = configs.parse_tuple(value)
        with section.ignore_type():
            section[leaf] = value
    configs.validate(config)
    return config.lock()


def named(
    config: ConfigDict, points: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Returns the points by the names of their folders.

    A name is a hash of what decides a run's bytes, without where the data lie, unless
    the grid itself varies that. It is the same for every version that has such a run,
    but for where the data lie, see `_by_name`.

    Raises:
        InputError: a point is bad, would need the test set, or trains what another
            does.
    """
    found: dict[str, dict[str, Any]] = {}
    for point in points:
        at = changed(config, point)
        _check_blind(at)
        other = found.setdefault(_name(configs.flatten(at), point), point)
        if other is not point:
            raise InputError(
                f"got {json.dumps(other)} and {json.dumps(point)}, need points that"
                " train differently; leave one out"
            )
    return found


def _name(flat: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    places = {n: FIELDS[n].default for n in identity.PLACES if n not in point}
    # It decides what a network learns where it is set.
    places.pop("data.num_classes", None)
    also = {
        name: value
        for name, value in identity.as_any_version(flat).items()
        if name == "train.steps" or name.startswith("parallel.")
    }
    return identity.seal(identity.lasting({**flat, **places}) | also)[:12]


def _by_name(folder: Path) -> dict[str, str]:
    """Returns the folders of a search by the names that they would have now.

    Earlier versions hashed where the data lie as well. Where a grid varied that, the
    folders of one name are several, and none of them is meant.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob(f"*/{files.CONFIG}")):
        name = _name(configs.filled(files.read_json(path)), {})
        if not (folder / name).exists():
            found.setdefault(name, []).append(path.parent.name)
    return {name: found[name][0] for name in found if len(found[name]) == 1}


def _check_blind(config: ConfigDict) -> None:
    # A file or folder may have a validation split of its own, which is seen later.
    own = config.data.file or config.data.source == "folder"
    if not config.data.val_examples and not own:
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


def collect(folder: Path, config: ConfigDict) -> dict[str, Any]:
    """Returns what is known of the finished runs in `folder`, the best first.

    Args:
        folder: of a search.
        config: what the differing fields of each run are named against.
    """
    import jax  # Here and not above, so that --help need not wait for it.

    # A run stores what its machine has chosen.
    base = configs.flatten(configs.for_platform(config, jax.default_backend()))
    found = []
    for path in sorted(folder.glob(f"*/{files.FINAL_METRICS}")):
        final = files.read_json(path)
        if "val/accuracy" not in final:
            continue  # a run proper, which is not compared by its test set
        about = files.read_json(path.parent / files.MANIFEST)
        flat = configs.filled(files.read_json(path.parent / files.CONFIG))
        found.append(
            {
                "run": path.parent.name,
                "changed": {k: v for k, v in sorted(flat.items()) if base.get(k) != v},
                **final,
                **{name: about[name] for name in ("commit", "machine", "versions")},
            }
        )
    found.sort(key=_score, reverse=True)
    return {"config": base, "runs": found}


def _score(final: Mapping[str, Any]) -> float:
    return next(_mean(final, key) for key in RANKED_BY if key in final)


def _mean(final: Mapping[str, Any], key: str) -> float:
    from cnnjax.metrics import mean_of  # which brings JAX

    return mean_of(final, key)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns the runs as lines: accuracy on the validation split, what was changed.

    An accuracy that no run has, such as that of averaged weights, has no column.

    Args:
        found: the `runs` that `collect` returned.
    """
    keys = [key for key in reversed(RANKED_BY) if any(key in run for run in found)]
    heads = [f"{key.removesuffix('/accuracy'):>9}" for key in keys]
    lines = [f"{''.join(heads)}  changed"]
    for final in found:
        figures = [
            f"{_mean(final, key):9.2%}" if key in final else f"{'':9}" for key in keys
        ]
        fields = ", ".join(f"{k}={v}" for k, v in final["changed"].items())
        lines.append(f"{''.join(figures)}  {fields or 'as --config has it'}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.main(run, doc=__doc__, default_config=DEFAULT_CONFIG, many=("vary",))
