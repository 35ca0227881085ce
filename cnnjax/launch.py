"""Trains a configured network in a folder, in one or several processes."""

import contextlib
import datetime
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cnnjax import config as configs
from cnnjax import loading, training
from cnnjax.data.dataset import Dataset
from cnnjax.errors import InputError
from cnnjax.reporting import console
from cnnjax.run import load_run, make_run, steps_may_change
from cnnjax.runtime import backend, environment, processes, signals
from cnnjax.workdir import files, identity, manifest


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    default_name: str = "",
    stand_in: str = "",
    with_test: bool = True,
    dataset: Dataset | None = None,
) -> None:
    """Trains and evaluates the network that `config` describes; prints the progress.

    With several processes, the first one's `workdir` counts, and only the first prints
    and writes files. Options of JAX that would change the results have a fixed value
    while this runs, see `runtime.environment`.

    Args:
        config: from `config.default_config`, with fields changed.
        workdir: a new folder, or that of a run of the same configuration, which is
            resumed; all processes must see it.
        default_name: the data set if the configuration names none; "" for the one that
            the network's class names.
        stand_in: the embedded data set if that one is missing; "" likewise.
        with_test: whether the test split is loaded; without it, the run ends with an
            evaluation on the validation split, which must then exist.
        dataset: the data set that `config` names, if it is loaded already.

    Raises:
        InputError: the configuration, the data, the devices, the environment or
            `workdir` do not fit, or other processes do not answer or were given another
            configuration.
        RunError: the run failed; what it has saved is kept.

    Example:
        >>> config = cj.default_config("MLP")
        >>> config.data.source, config.data.pipeline = "embedded", "device"
        >>> config.train.steps, config.train.batch_size = 2, 50
        >>> cj.train(config, "runs/example")  # doctest: +ELLIPSIS
        folder: runs/example...precision @ 1 = ...
        >>> cj.load_network("runs/example").step
        2
    """
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"got a configuration of type {type(config).__name__}, need a ConfigDict;"
            " make one with cnnjax.default_config"
        )
    configs.validate(config)
    config = config.copy_and_resolve_references()
    workdir = Path(os.path.expanduser(workdir))
    asked = config.parallel
    if asked.distributed:
        processes.join(asked.coordinator, asked.num_processes, asked.process_id)
        flat = configs.flatten(config)
        process_ids = processes.gather(flat.pop("parallel.process_id"))
        for name in identity.PLACES:  # each may have a copy of the data
            del flat[name]
        processes.check_same(flat | environment.record(jax.default_backend()))
        config.parallel.process_id = process_ids[0]
        workdir = Path(processes.gather(str(workdir))[0])
    config = configs.for_platform(config, jax.default_backend()).lock()
    if dataset is not None:
        loading.check_data(config, dataset)
        files.check_same_data(workdir, dataset.fingerprint, dataset.name)

    def load() -> tuple[Dataset, str]:
        found = dataset or loading.load_data(
            config, default_name=default_name, stand_in=stand_in, with_test=with_test
        )
        return found, loading.embedded_note(config, found, default_name)

    with (
        backend.memory_errors(),
        environment.pinned(),
        processes.only_first_prints(),
        processes.together() as meet,
    ):
        _train(config, workdir, load, meet)


def _train(
    config: ConfigDict,
    workdir: Path,
    load: Callable[[], tuple[Dataset, str]],
    meet: Callable[..., None],
) -> None:
    with files.writing(workdir, "workdir"):
        finished = files.finished(workdir, configs.flatten(config))
    if finished is not None:
        print(f"{workdir} is finished")
        console.print_summary(finished, config.eval.top_k)
        console.print_done(workdir)
        return
    data, folder = config.data, f"folder: {workdir}"
    named = data.source != "tfds" or data.name or data.dir
    if named:
        console.print_notice(folder)
    dataset, note = load()
    if not named:  # Only now it is known whether embedded data stand in.
        console.print_notice(folder, note)
    optim = config.optim
    if optim.schedule in ("linear", "cosine") and optim.decay_rate == 1:
        print(
            f"warning: optim.schedule={optim.schedule} with optim.decay_rate=1 keeps"
            " the learning rate; to let it fall to 0, set --config.optim.decay_rate=0",
            file=sys.stderr,
        )
    dataset, validation = loading.hold_out(config, dataset)
    run = make_run(config, dataset, validation)
    console.print_setup(
        run.recipe.model,
        run.input_shape,
        dataset,
        run.partitioner,
        config.train.batch_size,
    )
    manifest.check_same_environment(workdir, run.partitioner)
    _check_not_past(workdir, config.train.steps)
    # So that the first process changes no file before the others have read it.
    meet(data=f"{dataset.name} {dataset.fingerprint} of {dataset.num_classes} classes")
    opened: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if processes.is_first():
        opened = files.open_run(
            workdir,
            config.to_dict(),
            fingerprint=dataset.fingerprint,
            dataset=dataset.name,
            steps_may_change=steps_may_change(config),
        )
    with opened, signals.stop_requests() as stop:
        meet(last=True)
        final = training.train_and_evaluate(run, workdir, stop=stop)
        if processes.is_first():
            files.write_json(workdir / files.FINAL_METRICS, final)
        training.stop_if(stop.signum, workdir, config.train.steps)
    console.print_summary(final, config.eval.top_k)
    if config.train.report and processes.is_first():
        _report(config, workdir)
    console.print_done(workdir, note)


def _report(config: ConfigDict, workdir: Path) -> None:
    # Imported when used: matplotlib takes a while to import.
    from cnnjax.reporting import run_report

    try:
        run_report.write([workdir], partial(load_run, workdir, config))
    except Exception as error:  # No error of a report may fail a run that succeeded.
        print(f"warning: no report of {workdir}: {error}", file=sys.stderr)


def default_workdir(config_name: str) -> Path:
    """Returns `runs/<config>-<date-time>`, a new folder in the current one.

    A second run within the same second gets the suffix -2.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return files.unused(Path("runs") / f"{config_name}-{now}")


def _check_not_past(workdir: Path, steps: int) -> None:
    """Refuses fewer steps than a run has done, before its configuration is replaced."""
    saved = (workdir / files.CHECKPOINTS).glob("*")
    done = max((int(p.name) for p in saved if p.name.isdecimal()), default=0)
    if done > steps:
        raise InputError(
            f"{workdir} has done {done} steps, got train.steps={steps}; ask for at"
            " least as many or name another --workdir"
        )
