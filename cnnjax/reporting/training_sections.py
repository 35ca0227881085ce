"""The sections of a report that are made from the files of one or several runs."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnjax.metrics import SPREAD_SUFFIXES
from cnnjax.reporting import plots
from cnnjax.reporting.curves import Curve, curve, mean_and_deviation, over_seeds
from cnnjax.reporting.report import Picture, Section, Table

MISSING = "\N{EM DASH}"

# Scale of the vertical axis by unit. Losses fall by a factor of a hundred.
SCALES = {"nats": "log", "fraction": "linear"}


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The contents of a run's files.

    Attributes:
        name: name of the run in the report.
        config: flat fields of `config.json`.
        manifest: flat fields of `manifest.json`; empty if there is none.
        records: lines of `metrics.jsonl`.
        final: final metrics; empty if the run has not finished.
        dataset: name of the data set.
    """

    name: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    final: Mapping[str, Any]
    dataset: str


def curves_of_run(run: RunFiles) -> Section:
    """Returns loss, accuracy, learning rate and throughput of one run."""
    splits = {r["eval/split"] for r in run.records if "eval/split" in r}
    split = ", ".join(sorted(map(str, splits)))
    figures = {
        "loss": (
            {
                "total": "train/loss",
                "cross-entropy": "train/cross_entropy",
                "L2": "train/l2",
                f"cross-entropy, {split}": "eval/loss",
            },
            "nats",
        ),
        "accuracy": (
            {
                "training batches": "train/accuracy",
                split: "eval/accuracy",
                f"{split}, averaged weights": "eval_ema/accuracy",
            },
            "fraction",
        ),
        "learning_rate": ({"learning rate": "train/learning_rate"}, "learning rate"),
        "throughput": ({"training": "perf/examples_per_sec"}, "examples per second"),
    }
    pictures: list[Picture] = []
    for name, (keys, unit) in figures.items():
        found = {label: curve(run.records, key) for label, key in keys.items()}
        lines = {label: line for label, line in found.items() if line is not None}
        pictures += _picture(name, lines, run.dataset, unit)
    return Section(
        "Training",
        [
            "Pale: what was logged; strong: its running mean. A band is one standard"
            " deviation over seeds. Losses of evaluations hold no L2."
        ],
        pictures,
    )


def curves_of_runs(runs: Sequence[RunFiles]) -> Section:
    """Returns the curves of several runs, averaged over those that differ in seed."""
    groups = _groups(runs)
    datasets = ", ".join(sorted({run.dataset for run in runs}))
    figures = {
        "cross_entropy": ("train/cross_entropy", "nats"),
        "l2": ("train/l2", "nats"),
        "training_accuracy": ("train/accuracy", "fraction"),
        "evaluation_accuracy": ("eval/accuracy", "fraction"),
        "learning_rate": ("train/learning_rate", "learning rate"),
        "throughput": ("perf/examples_per_sec", "examples per second"),
    }
    pictures: list[Picture] = []
    for name, (key, unit) in figures.items():
        lines = {}
        for label, members in groups.items():
            found = [curve(run.records, key) for run in members]
            present = [line for line in found if line is not None]
            if present:
                line = over_seeds(present)
                if len(line.steps):  # unfinished runs may have none in common
                    lines[label] = line
        pictures += _picture(f"compared_{name}", lines, datasets, unit)
    return Section(
        "Training, compared",
        [
            "Runs on the same pictures whose configurations differ in the seed alone"
            " are one line, their mean, with a band of one standard deviation of a"
            " sample either way."
        ],
        pictures,
    )


def differences(runs: Sequence[RunFiles]) -> Section:
    """Returns the differences between runs: results, configurations, manifests."""
    head = ["", *(run.name for run in runs)]
    results = [
        [name, *(_figure_of(run.final, name) for run in runs)]
        for name in _result_names(runs)
    ]
    tables = [Table(head, results)]
    for part in ("config", "manifest"):
        values = [getattr(run, part) for run in runs]
        names = dict.fromkeys(name for value in values for name in value)
        rows = [
            [f"{part}: {name}", *(_spell(v.get(name, MISSING)) for v in values)]
            for name in names
            if len({_spell(v.get(name, MISSING)) for v in values}) > 1
        ]
        tables.append(Table(head, rows))
    return Section("Differences", (), (), [table for table in tables if table.rows])


def about_run(run: RunFiles) -> Section:
    """Returns the results, the configuration and the manifest of a run."""
    tables = [
        Table(
            ["result", "value"],
            [[name, _figure_of(run.final, name)] for name in _result_names([run])],
        ),
        Table(
            ["field", "value"],
            [[name, _spell(value)] for name, value in run.config.items()],
            folded_as="Configuration",
        ),
        Table(
            ["field", "value"],
            [[name, _spell(value)] for name, value in run.manifest.items()],
            folded_as="Manifest",
        ),
    ]
    return Section("The run", (), (), [table for table in tables if table.rows])


def _picture(
    name: str, lines: Mapping[str, Curve], dataset: str, unit: str
) -> Iterator[Picture]:
    words = name.removeprefix("compared_").replace("_", " ")
    scale = SCALES.get(unit, "from_zero")
    if scale == "log":
        lines = {label: line for label, line in lines.items() if line.values.max() > 0}
    if lines:
        png = plots.curves(
            lines,
            title=f"{words}, {dataset}",
            unit=unit,
            scale=scale,
        )
        last = "; ".join(f"{k} ends at {v.values[-1]:.4g}" for k, v in lines.items())
        yield Picture(name, png, f"{words} over the steps: {last}")


def _groups(runs: Sequence[RunFiles]) -> dict[str, list[RunFiles]]:
    """Groups the runs that differ only in their seed: label -> runs.

    A run of several seeds is a group of its own, as is a run whose seed its group has.
    """
    groups: dict[str, list[RunFiles]] = {}
    for run in runs:
        rest = {name: value for name, value in run.config.items() if name != "seed"}
        data = run.manifest.get("data.fingerprint", run.dataset)
        key = json.dumps([rest, data], sort_keys=True)
        seeds = [other.config["seed"] for other in groups.get(key, [])]
        if run.config.get("num_seeds", 1) > 1 or run.config["seed"] in seeds:
            key = run.name
        groups.setdefault(key, []).append(run)
    labels = {}
    for members in groups.values():
        more = f" ({len(members)} seeds)" if len(members) > 1 else ""
        labels[members[0].name + more] = members
    return labels


def _result_names(runs: Sequence[RunFiles]) -> list[str]:
    """Returns the names of the figures, without the means and deviations over seeds."""
    names = dict.fromkeys(name for run in runs for name in run.final)
    return [name for name in names if not name.endswith(SPREAD_SUFFIXES)]


def _figure_of(final: Mapping[str, Any], name: str) -> str | float | int:
    value = final.get(name, MISSING)
    figure = mean_and_deviation(final, name)
    if isinstance(value, list) and figure is not None and figure[1] is not None:
        return f"{figure[0]:.4g} \N{PLUS-MINUS SIGN} {figure[1]:.2g}"
    return value if isinstance(value, str | int | float) else _spell(value)


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
