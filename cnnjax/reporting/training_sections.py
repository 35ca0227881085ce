"""The sections of a report that are made from the files of one or several runs."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax.metrics import SPREAD_SUFFIXES
from cnnjax.reporting import numbers, plots
from cnnjax.reporting.curves import Curve, curve, over_seeds
from cnnjax.reporting.numbers import MISSING
from cnnjax.reporting.report import Head, Picture, Row, Section, Table

# Scale of the vertical axis by unit. Losses fall by a factor of a hundred.
SCALES = {"nats": "log", "fraction": "linear"}

RESULTS = (
    "Behind an accuracy stands its 95% interval (Wilson 1927): where it may lie on"
    " other test pictures, seen from so many; \N{PLUS-MINUS SIGN} is a standard"
    " deviation over seeds."
)


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


def head_of_run(run: RunFiles) -> Head:
    """Returns what stands first in the report of one run."""
    config, final = run.config, run.final
    title = f"{run.name}: {config['model.name']} on {run.dataset}"
    first, count = config["seed"], config["num_seeds"]
    seeds = f"seed {first}" if count == 1 else f"seeds {first} to {first + count - 1}"
    steps, batch = f"{config['train.steps']:,}", f"{config['train.batch_size']:,}"
    accuracy = accuracy_of([run])
    if accuracy is None:
        last = max((record["step"] for record in run.records), default=0)
        return Head(
            title,
            f"{config['model.name']}, {seeds}, is not finished on {run.dataset}: it has"
            f" logged step {last:,} of {steps}.",
            [("step", f"{last:,}", f"of {steps}, {batch} pictures each")],
        )
    split = _split(run)
    keys = ("num_params", "train_seconds", "perf/examples_per_sec", f"{split}/count")
    size, time, speed, count = (numbers.result(final, key) for key in keys)
    return Head(
        title,
        f"{config['model.name']} with {size} parameters, trained on {run.dataset} for"
        f" {steps} steps of {batch} pictures in {time} ({seeds}), predicts"
        f" {accuracy.shown} of {count} {numbers.SPLITS[split]} pictures right"
        f" ({accuracy.remark}).",
        [
            ("accuracy", accuracy.shown, accuracy.remark),
            ("steps", steps, f"{batch} pictures each, {seeds}"),
            ("training time", time, f"{speed} pictures a second"),
            ("parameters", size, config["model.name"]),
        ],
    )


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The accuracy in the end, of one run or of several that differ in their seed.

    Attributes:
        mean: over the seeds.
        ends: of the 95% interval of one, or one standard deviation around the mean.
        shown: the number as a text.
        remark: what the interval is.
    """

    mean: float
    ends: tuple[float, float]
    shown: str
    remark: str


def accuracy_of(runs: Sequence[RunFiles]) -> Accuracy | None:
    """Returns the accuracy of one run, or of several seeds; None if none has ended."""
    split = next((_split(run) for run in runs if run.final), "test")
    key = f"{split}/accuracy"
    finals = [run.final for run in runs if isinstance(run.final.get(key), float | list)]
    if not finals:
        return None
    top_k = runs[0].config.get("eval.top_k", 1)
    among = f", among the top {top_k}" if top_k > 1 else ""
    among += ", of validation pictures" if split == "val" else ""
    values = np.concatenate([np.ravel(final[key]) for final in finals])
    mean = float(values.mean())
    if len(values) > 1:
        spread = float(values.std(ddof=1))
        shown = f"{mean:.2%} \N{PLUS-MINUS SIGN} {100 * spread:.2f}"
        remark = f"mean and standard deviation of {len(values)} seeds{among}"
        return Accuracy(mean, (mean - spread, mean + spread), shown, remark)
    count = finals[0].get(f"{split}/count", 0)
    low, high = map(float, numbers.wilson(mean * count, count))
    remark = f"95% interval {low:.2%} to {high:.2%}{among}"
    return Accuracy(mean, (low, high), f"{mean:.2%}", remark)


def _split(run: RunFiles) -> str:
    """Returns "test", or "val" if the data set has no test pictures."""
    return "test" if "test/accuracy" in run.final else "val"


def head_of_runs(runs: Sequence[RunFiles]) -> Head:
    """Returns what stands first in a comparison: the accuracies of the runs."""
    datasets = " and ".join(sorted({run.dataset for run in runs}))
    return Head(
        f"{len(runs)} runs: {', '.join(run.name for run in runs)}",
        f"{len(runs)} runs on {datasets}, side by side; runs that differ in their seed"
        " alone count as one, and their accuracies have a mean and a spread.",
        [
            (name, found.shown, found.remark)
            for name, members in _groups(runs).items()
            if (found := accuracy_of(members)) is not None
        ],
    )


def _evaluated_on(run: RunFiles) -> str:
    """Returns the split on which a run was evaluated while it trained; "" for none."""
    splits = {r["eval/split"] for r in run.records if "eval/split" in r}
    return ", ".join(sorted(map(str, splits)))


def curves_of_run(run: RunFiles) -> Section:
    """Returns loss, accuracy, learning rate and throughput of one run."""
    split = _evaluated_on(run)
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
        "throughput": ({"training": "perf/examples_per_sec"}, "images per second"),
    }
    notes = [
        "Pale: what was logged; strong: its running mean. A band is one standard"
        " deviation over seeds. Losses of evaluations hold no L2."
    ]
    pictures: list[Picture] = []
    for name, (keys, unit) in figures.items():
        found = {label: curve(run.records, key) for label, key in keys.items()}
        lines = _told_apart({k: line for k, line in found.items() if line is not None})
        if {len(line.steps) for line in lines.values()} == {1}:
            notes += [_number(label, line, unit) for label, line in lines.items()]
        else:
            pictures += _picture(name, lines, run.dataset, unit)
    return Section("Training", notes, pictures)


def _told_apart(lines: Mapping[str, Curve]) -> dict[str, Curve]:
    """Returns the lines; those that lie on each other become one with both names."""
    found: dict[str, Curve] = {}
    for name, line in lines.items():
        for other, drawn in list(found.items()):
            if np.array_equal(drawn.values, line.values) and len(line.steps) > 1:
                del found[other]
                name = f"{other} = {name}"
        found[name] = line
    return found


def _number(label: str, line: Curve, unit: str) -> str:
    value = line.values[0]
    shown = f"{value:.2%}" if unit == "fraction" else f"{numbers.plain(value)} {unit}"
    return f"{label}, after {line.steps[0]:,} steps: {shown}."


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
        "throughput": ("perf/examples_per_sec", "images per second"),
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
        single = {len(line.steps) for line in lines.values()} == {1}
        if single and key == "eval/accuracy":
            pictures += _in_the_end(f"compared_{name}", groups, datasets)
        elif not single:
            pictures += _picture(f"compared_{name}", lines, datasets, unit)
    note = (
        "Runs on the same pictures whose configurations differ in the seed alone are"
        " one line, their mean, with a band of one standard deviation of a sample"
        " either way."
    )
    notes = [note]
    if len({_evaluated_on(run) for run in runs} - {""}) > 1:
        each = [f"{run.name} on {_evaluated_on(run)}" for run in runs]
        notes.append(f"Evaluated during training: {', '.join(each)}.")
    return Section("Training, compared", notes, pictures)


def differences(runs: Sequence[RunFiles]) -> Section:
    """Returns one table: results, and what differs in configurations and manifests."""
    rows: list[Row] = [
        [_label(key, runs), *(numbers.result(run.final, key) for run in runs)]
        for key in _result_keys(runs)
    ]
    for part in ("config", "manifest"):
        values = [getattr(run, part) for run in runs]
        for name in dict.fromkeys(name for value in values for name in value):
            spelt = [_spell(value.get(name, MISSING)) for value in values]
            # What an older version did not record is no difference.
            recorded = MISSING not in spelt or not name.startswith("environment.")
            if len(set(spelt)) > 1 and recorded:
                rows.append([f"{part}: {name}", *spelt])
    table = Table(["", *(run.name for run in runs)], rows)
    return Section("Differences", [RESULTS], (), [table] if rows else [])


def about_run(run: RunFiles) -> Section:
    """Returns the results, the configuration and the manifest of a run."""
    results = [
        [_label(key, [run]), numbers.result(run.final, key)]
        for key in _result_keys([run])
    ]
    tables = [Table(["result", "value"], results)]
    folded = {"Configuration": run.config, "Manifest": run.manifest}
    for title, values in folded.items():
        rows = [[name, _spell(value)] for name, value in values.items()]
        tables.append(Table(["field", "value"], rows, folded_as=title))
    notes = [RESULTS] if run.final else []
    return Section("The run", notes, (), [table for table in tables if table.rows])


def _picture(
    name: str, lines: Mapping[str, Curve], dataset: str, unit: str
) -> Iterator[Picture]:
    words = name.removeprefix("compared_").replace("_", " ")
    scale = SCALES.get(unit, "from_zero")
    if scale == "log":
        lines = {label: line for label, line in lines.items() if line.values.max() > 0}
    if lines:
        title = f"{words}, {dataset}"
        svg = plots.curves(lines, title=title, unit=unit, scale=scale)
        last = "; ".join(f"{k} ends at {v.values[-1]:.4g}" for k, v in lines.items())
        yield Picture(name, svg, f"{words} over the steps: {last}")


def _in_the_end(
    name: str, groups: Mapping[str, Sequence[RunFiles]], dataset: str
) -> Iterator[Picture]:
    found = {label: accuracy_of(members) for label, members in groups.items()}
    ended = {label: one for label, one in found.items() if one is not None}
    if ended:
        title = f"accuracy in the end, {dataset}"
        drawn = {label: (one.mean, *one.ends) for label, one in ended.items()}
        last = "; ".join(f"{label} {one.shown}" for label, one in ended.items())
        yield Picture(name, plots.intervals(drawn, title=title), f"{title}: {last}")


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


def _result_keys(runs: Sequence[RunFiles]) -> list[str]:
    """Returns the keys of results that have a row, in their order.

    Means and deviations over seeds stand in the row of what they are of, and counts in
    the accuracy's interval.
    """
    keys = dict.fromkeys(key for run in runs for key in run.final)
    no_row = (*SPREAD_SUFFIXES, "/correct", "/count")
    return [key for key in keys if not key.endswith(no_row)]


def _label(key: str, runs: Sequence[RunFiles]) -> str:
    views = {run.config.get("eval.views") for run in runs}
    named = f"{views.pop()} views" if len(views) == 1 else "several views"
    return numbers.label(key).replace("multiview", named)


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
