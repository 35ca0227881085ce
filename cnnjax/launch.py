"""What the scripts do: train and evaluate what a configuration describes."""

import contextlib
import datetime
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import assembly, loading, training
from cnnjax.data.load import Dataset
from cnnjax.errors import InputError
from cnnjax.reporting import console, tensorboard
from cnnjax.runtime import processes, signals
from cnnjax.runtime.clocks import Clocks
from cnnjax.training import Cadence
from cnnjax.updates import Update
from cnnjax.workdir import files, manifest


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    default_name: str,
    fallback: str,
    with_test: bool = True,
    dataset: Dataset | None = None,
) -> None:
    """Trains and evaluates what `config` describes, in `workdir`; prints as it goes.

    Of many processes the first says which `workdir`, and alone prints and writes.

    Args:
        config: validated.
        workdir: a new folder, or that of a run of the same configuration; one that all
            processes see.
        default_name: of the data set where the configuration names none.
        fallback: the embedded data set for where that one is not to be had.
        with_test: whether the test set is opened; without, the run ends with its
            figures on the validation split, of which there must be one.
        dataset: what `config` names, where it has been loaded already.

    Raises:
        InputError: the data, the devices or `workdir` do not fit `config`, or other
            processes do not answer or were given another.
    """
    asked = config.parallel
    if asked.distributed:
        processes.join(asked.coordinator, asked.num_processes, asked.process_id)
        flat = files.flatten(config.to_dict())
        process_ids = processes.gather(flat.pop("parallel.process_id"))
        processes.check_same(flat)
        config = config.copy_and_resolve_references()
        config.parallel.process_id = process_ids[0]
        config.lock()
        workdir = Path(processes.gather(str(workdir))[0])
    with processes.only_first_prints(), processes.together() as meet:
        _train(config, workdir, default_name, fallback, with_test, dataset, meet)


def _train(
    config: ConfigDict,
    workdir: Path,
    default_name: str,
    fallback: str,
    with_test: bool,
    dataset: Dataset | None,
    meet: Callable[..., None],
) -> None:
    stored = files.flatten(config.to_dict())
    with files.writing(workdir, "workdir"):
        finished = files.finished(workdir, stored)
    if finished is not None:
        print(f"{workdir} is finished")
        console.print_summary(finished, config.eval.top_k)
        return
    if dataset is None:
        dataset = loading.load_data(
            config, default_name=default_name, fallback=fallback, with_test=with_test
        )
    note = loading.embedded_note(config, dataset, default_name)
    if note:
        print(note, flush=True)
    dataset, validation = loading.split(config, dataset)
    mesh = assembly.choose_mesh(config)
    recipe = assembly.make_recipe(config, dataset.num_classes)
    preprocessing = assembly.make_preprocessing(config)
    shape = preprocessing.output_shape(dataset.image_shape)
    with loading.fitting(config, dataset):
        console.print_setup(
            recipe.model,
            shape,
            dataset,
            batch_size=config.train.batch_size,
            num_seeds=config.num_seeds,
            mesh=mesh,
            mode=config.parallel.mode,
        )
    files.check_same_data(workdir, dataset.fingerprint, dataset.name)
    _check_not_past(workdir, config.train.steps)
    about = manifest.describe(
        mesh,
        mode=config.parallel.mode,
        data={
            "name": dataset.name,
            "version": dataset.version,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.class_names),
            "image_shape": list(dataset.image_shape),
        },
    )
    make_update = assembly.make_update(
        config, recipe, dataset.train, preprocessing, mesh
    )

    def start(first_step: int, clocks: Clocks) -> Update:
        # Only here can the run no longer be refused, and its manifest be replaced.
        if processes.is_first():
            files.write_json(workdir / files.MANIFEST, about)
        return make_update(first_step, clocks)

    meet()  # before the first changes what the others have read
    opened: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if processes.is_first():
        opened = files.open_run(
            workdir,
            config.to_dict(),
            steps_may_change=assembly.steps_may_change(config),
        )
    with opened, signals.stop_requests() as stop:
        meet(last=True)
        final = training.train_and_evaluate(
            recipe,
            dataset,
            start,
            partial(
                tensorboard.open_board,
                workdir,
                wanted=config.train.tensorboard
                and config.num_seeds == 1
                and processes.is_first(),
                look=tensorboard.make_look(
                    recipe.model,
                    dataset.train,
                    preprocessing,
                    seed=config.seed,
                    batch_size=config.train.batch_size,
                ),
            ),
            validation=validation,
            preprocessing=preprocessing,
            cadence=Cadence(
                steps=config.train.steps,
                log_every=config.train.log_every,
                eval_every=config.train.eval_every,
                checkpoint_every=config.train.checkpoint_every,
            ),
            eval_batch_size=config.eval.batch_size,
            top_k=config.eval.top_k,
            num_views=config.eval.views,
            seed=config.seed,
            num_seeds=config.num_seeds,
            batch_size=config.train.batch_size,
            mesh=mesh,
            mode=config.parallel.mode,
            workdir=workdir,
            run=files.of_run(config.to_dict(), dataset.fingerprint),
            stop=stop,
        )
        if processes.is_first():
            files.write_json(workdir / files.FINAL_METRICS, final)
        signals.raise_if(stop.signum)
    console.print_summary(final, config.eval.top_k)
    if config.train.report and processes.is_first():
        _report(config, workdir)
    if note:
        print(note, flush=True)


def _report(config: ConfigDict, workdir: Path) -> None:
    # Here and not above: matplotlib and scikit-learn take seconds to import.
    from cnnjax.reporting import run_report

    try:
        run_report.write([(workdir, config)])
    except Exception as error:  # Whatever it is: the run itself is done, and good.
        print(f"warning: no report of {workdir}: {error}", file=sys.stderr)


def default_workdir(config_name: str) -> Path:
    """Returns `runs/<config>-<date-time>`, in the current folder.

    A second one within a second ends in -2: what is small is done sooner than that.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return files.unused(Path("runs") / f"{config_name}-{now}")


def _check_not_past(workdir: Path, steps: int) -> None:
    """Refuses fewer steps than are done, before the run's configuration is replaced."""
    saved = (workdir / files.CHECKPOINTS).glob("*")
    done = max((int(p.name) for p in saved if p.name.isdecimal()), default=0)
    if done > steps:
        raise InputError(
            f"{workdir} has done {done} steps, got train.steps={steps}; ask for at"
            " least as many or name another --workdir"
        )
