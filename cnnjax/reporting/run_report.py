"""The report of one or several runs: their files, and the first run's network."""

import datetime
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax.config import filled, flatten
from cnnjax.errors import InputError, RunError
from cnnjax.models import summary
from cnnjax.reporting import diagnosis, network_sections, report, training_sections
from cnnjax.reporting.curves import read_metrics
from cnnjax.reporting.report import Head, Section
from cnnjax.reporting.training_sections import RunFiles
from cnnjax.run import Run, abstract_state, of_one_seed, restore
from cnnjax.workdir import files

REPORT = "report"
NUM_MISTAKES = 25
NUM_DISTORTED = 15


def write(workdirs: Sequence[Path], load: Callable[[], Run]) -> Path:
    """Writes a report of one run, or a comparison of several, and prints its path.

    The sections about a network show the first run's, which `load` returns, perhaps
    with other data. If a checkpoint, the data or a file is missing, the report and
    standard error say so, and the rest is reported.

    Returns:
        `report/index.html` in the run's folder, or of several runs `index.html` in
        `runs/comparison-<date-time>`, a new folder in the current one; the images are
        beside it.

    Raises:
        InputError: no run has logged or saved anything, or the folder cannot be
            written.
    """
    warnings: list[str] = []
    _say(f"reading {', '.join(map(str, workdirs))}")
    read = [
        _read(workdir, name, warnings)
        for workdir, name in zip(workdirs, _names(workdirs), strict=True)
    ]
    workdir, network = workdirs[0], list[Section]()
    try:
        run = load()
        network.append(_layers(run))
        network += _diagnose(workdir, run)
    except (InputError, RunError) as error:
        warnings.append(f"nothing is said of the network's predictions: {error}")
    if len(network) < 2 and not any(run.records for run in read):
        raise InputError(
            f"{workdir} has nothing to report yet, neither a metrics.jsonl nor a"
            " checkpoint that can be used; let it train"
        )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    _say("drawing the curves")
    head, folder, compared = (
        training_sections.head_of_run(read[0]),
        workdir / REPORT,
        [],
    )
    if len(read) > 1:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = files.unused(Path("runs") / f"comparison-{now}")
        compared = [
            training_sections.differences(read),
            training_sections.curves_of_runs(read),
            Section(f"From here on: {read[0].name}", [head.lead]),
        ]
        head = training_sections.head_of_runs(read)
    sections = [
        *([Section("Missing", warnings, is_warning=True)] if warnings else []),
        *compared,
        training_sections.about_run(read[0]),
        training_sections.curves_of_run(read[0]),
        *network,
    ]
    page = _write(folder, head, sections)
    _say(str(page))
    return page


def _say(what: str) -> None:
    print(f"report: {what}", flush=True)


def _names(workdirs: Sequence[Path]) -> list[str]:
    """Returns the names of the runs: those of their folders, or paths if two agree."""
    names = [workdir.resolve().name for workdir in workdirs]
    if len(set(names)) < len(names):
        return [str(workdir) for workdir in workdirs]
    return names


def _read(workdir: Path, name: str, warnings: list[str]) -> RunFiles:
    # The run's own configuration, even if its network is shown on other data.
    config = filled(files.read_json(workdir / files.CONFIG))
    records, torn = read_metrics(workdir / files.METRICS)
    if torn:
        warnings.append(f"{workdir / files.METRICS} has {torn} unreadable lines")
    optional: dict[str, dict[str, Any]] = {}
    for file in (files.MANIFEST, files.FINAL_METRICS):
        optional[file] = {}
        if (workdir / file).exists():
            try:
                optional[file] = files.read_json(workdir / file)
            except InputError as error:
                warnings.append(str(error))
    command = optional[files.MANIFEST].get("command")
    if isinstance(command, list):  # as it is typed, an argument a line
        typed = (shlex.quote(str(part)) for part in command)
        optional[files.MANIFEST]["command"] = " \\\n  ".join(typed)
    final, manifest = optional[files.FINAL_METRICS], optional[files.MANIFEST]
    if final.get("steps") != config["train.steps"]:  # from before it was made longer
        final = {}
    if not final:
        last = max((record["step"] for record in records), default=0)
        warnings.append(
            f"{workdir} is not finished: it has logged step {last} of"
            f" {config['train.steps']}"
        )
    data = manifest.get("data")
    named = data.get("name") if isinstance(data, dict) else None
    return RunFiles(
        name=name,
        config=config,
        manifest=flatten(manifest),
        records=records,
        final=final,
        dataset=str(named or config["data.name"] or "unknown data"),
    )


def _layers(run: Run) -> Section:
    model, shape = run.recipe.model, run.input_shape
    found = summary.layers(model, shape)
    params = abstract_state(run.recipe, run.dataset.image_shape).params
    kernels = {}
    for layer in found:
        weights = params
        for name in filter(None, layer.name.split("/")):
            weights = weights[name]
        kernels[layer.name] = np.shape(weights.get("kernel", 0))
    return network_sections.layers(found, kernels, shape, run.config.model.name)


def _diagnose(workdir: Path, run: Run) -> list[Section]:
    # With several seeds, the network of the first one is shown.
    state = of_one_seed(restore(workdir, run.abstract_state()), 0)
    variables = jax.device_get(state.variables)
    recipe, dataset = run.recipe, run.dataset
    test, names = dataset.test, dataset.class_names
    _say(f"predicting {len(test.labels):,} test pictures")
    probabilities = diagnosis.predict(
        recipe, variables, test, run.config.eval.batch_size
    )
    _say("drawing predictions, mistakes, filters and feature maps")
    calibration = diagnosis.calibrate(probabilities, test.labels)
    wrong = diagnosis.confident_mistakes(probabilities, test.labels, NUM_MISTAKES)
    note = f"What follows is of the weights after {int(state.step):,} steps"
    if len(run.seeds) > 1:
        note += f" of seed {int(state.seed)}"
    if recipe.ema_decay:
        note += ", not of their average"
    sections = [
        Section("The network", [f"{note}, on the test set of {dataset.name}."]),
        network_sections.predictions(probabilities, test.labels, names, dataset.name),
        network_sections.calibration(
            calibration.count,
            calibration.confidence,
            calibration.accuracy,
            calibration.error,
            dataset.name,
        ),
        network_sections.mistakes(
            test.images[wrong],
            [names[label] for label in test.labels[wrong]],
            [names[label] for label in probabilities[wrong].argmax(axis=1)],
            probabilities[wrong].max(axis=1),
            dataset.name,
        ),
        network_sections.insides(
            summary.first_kernel(recipe.model, state.params, run.input_shape),
            test.images[0],
            diagnosis.feature_maps(recipe, variables, test.images[0]),
        ),
    ]
    how = recipe.preprocessing
    if how.distortions:
        image = dataset.train.images[0]
        made = diagnosis.distorted(
            image, how, seed=run.config.seed, count=NUM_DISTORTED
        )
        sections.append(network_sections.distortions(image, made, how.distortions))
    return [section for section in sections if section is not None]


def _write(folder: Path, head: Head, sections: Sequence[Section]) -> Path:
    page = folder / "index.html"
    advice = "copy the run to one, or start this in a folder that can be written"
    with files.writing(folder.parent, "workdir", advice):
        folder.mkdir(exist_ok=True, parents=True)
        for section in sections:
            for picture in section.pictures:
                (folder / f"{picture.name}.svg").write_bytes(picture.svg)
        page.write_bytes(report.render(head, sections))
    return page
