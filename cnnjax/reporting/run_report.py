"""A report of runs: what their files say, and what the first one's network does."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from cnnjax import assembly, loading, network
from cnnjax.errors import InputError, RunError
from cnnjax.reporting import diagnosis, network_sections, report, training_sections
from cnnjax.reporting.curves import read_metrics
from cnnjax.reporting.report import Section
from cnnjax.reporting.training_sections import RunFiles
from cnnjax.workdir import files

REPORT = "report"
NUM_MISTAKES = 25
NUM_DISTORTED = 15


def write(found: Sequence[tuple[Path, ConfigDict]]) -> Path:
    """Writes a report of one or several runs, and prints where; the runs stay.

    Several are compared, and what is said of a network is of the first one's. What
    cannot be had, as no checkpoint or no data, is said in the report and on standard
    error, and the rest is reported.

    Args:
        found: the folder and the configuration of each run, perhaps with other data.

    Returns:
        `report/index.html` in the first run's folder; the pictures lie beside it.

    Raises:
        InputError: a run has logged nothing and saved nothing, or the folder cannot be
            written.
    """
    warnings: list[str] = []
    workdirs = [workdir for workdir, _ in found]
    files = [
        _read(workdir, name, warnings)
        for workdir, name in zip(workdirs, _names(workdirs), strict=True)
    ]
    workdir, config = found[0]
    try:
        network = _diagnose(workdir, config)
    except (InputError, RunError) as error:
        warnings.append(f"nothing is said of the network's predictions: {error}")
        network = []
    if not network and not any(run.records for run in files):
        raise InputError(
            f"{workdir} has nothing to report yet, neither a metrics.jsonl nor a"
            " checkpoint that can be used; let it train"
        )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    title = f"{files[0].name}: {config.model.name} on {files[0].dataset}"
    compared = []
    if len(files) > 1:
        title = f"{len(files)} runs: {', '.join(run.name for run in files)}"
        compared = [
            training_sections.differences(files),
            training_sections.curves_of_runs(files),
        ]
    heading = f"From here on: {files[0].name}"
    sections = [
        *([Section("Missing", warnings, is_warning=True)] if warnings else []),
        *compared,
        *([Section(heading)] if compared else []),
        training_sections.about_run(files[0]),
        training_sections.curves_of_run(files[0]),
        *network,
    ]
    page = _write(workdir / REPORT, title, sections)
    print(f"report: {page}", flush=True)
    return page


def _names(workdirs: Sequence[Path]) -> list[str]:
    """Returns what each run is called: its folder, with its path where two have one."""
    names = [workdir.resolve().name for workdir in workdirs]
    if len(set(names)) < len(names):
        return [str(workdir) for workdir in workdirs]
    return names


def _read(workdir: Path, name: str, warnings: list[str]) -> RunFiles:
    # The run's own, whatever other data its network is looked at with.
    config = files.flatten(network.stored_config(workdir))
    records, torn = read_metrics(workdir / files.METRICS)
    if torn:
        warnings.append(f"{workdir / files.METRICS} has {torn} unreadable lines")
    optional: dict[str, dict[str, Any]] = {}
    for file in (files.MANIFEST, files.FINAL_METRICS):
        optional[file] = {}
        if (workdir / file).exists():
            optional[file] = files.read_json(workdir / file)
    final, manifest = optional[files.FINAL_METRICS], optional[files.MANIFEST]
    if final.get("steps") != config["train.steps"]:  # of a run that was made longer
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
        manifest=files.flatten(manifest),
        records=records,
        final=final,
        dataset=str(named or config["data.name"] or "unknown data"),
    )


def _diagnose(workdir: Path, config: ConfigDict) -> list[Section]:
    trained_on = files.trained_on(workdir)["name"]
    dataset = loading.load_data_of_run(config, trained_on)
    network.check_same_classes(workdir, dataset.class_names, dataset.name)
    recipe = assembly.make_recipe(config, dataset.num_classes)
    preprocessing = assembly.make_preprocessing(config)
    shape = preprocessing.output_shape(dataset.image_shape)
    with loading.fitting(config, dataset):
        like = network.abstract_state(
            recipe, num_seeds=config.num_seeds, image_shape=shape
        )
    # Of many seeds, the first.
    state = network.replica(network.restore(workdir, like), 0)
    params = jax.device_get(state.params)
    test, names = dataset.test, dataset.class_names
    probabilities = diagnosis.predict(
        recipe.model, params, test, preprocessing, batch_size=config.eval.batch_size
    )
    calibration = diagnosis.calibrate(probabilities, test.labels)
    wrong = diagnosis.confident_mistakes(probabilities, test.labels, NUM_MISTAKES)
    note = f"What follows is of the weights after {int(state.step)} steps"
    if config.num_seeds > 1:
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
            diagnosis.first_filters(params),
            test.images[0],
            diagnosis.feature_maps(recipe.model, params, test.images[0], preprocessing),
        ),
    ]
    if preprocessing.distortions:
        image = dataset.train.images[0]
        made = diagnosis.distorted(
            image, preprocessing, seed=config.seed, count=NUM_DISTORTED
        )
        sections.append(
            network_sections.distortions(image, made, preprocessing.distortions)
        )
    return [section for section in sections if section is not None]


def _write(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    page = folder / "index.html"
    with files.writing(folder.parent, "workdir", "copy the run to one"):
        folder.mkdir(exist_ok=True)
        for section in sections:
            for picture in section.pictures:
                (folder / f"{picture.name}.png").write_bytes(picture.png)
        page.write_bytes(report.render(title, sections))
    return page
