"""What the scripts do: train and evaluate what a configuration describes."""

import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import assembly, inference, manifest, parallel, runs, training
from cnnjax.cadence import Cadence
from cnnjax.clocks import Clocks
from cnnjax.data import datasets
from cnnjax.data.datasets import Dataset
from cnnjax.errors import InputError
from cnnjax.evaluation import Evaluator
from cnnjax.reporting import console, tensorboard, writer
from cnnjax.state import init_state
from cnnjax.updates import Update


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    default_name: str,
    fallback: str,
) -> None:
    """Trains and evaluates what `config` describes, in `workdir`; prints as it goes.

    Args:
        config: validated.
        workdir: a new folder, or that of a run of the same configuration.
        default_name: of the data set where the configuration names none.
        fallback: the embedded data set for where that one is not to be had.

    Raises:
        InputError: the data, the devices or `workdir` do not fit `config`.
    """
    stored = runs.flatten(config.to_dict())
    try:
        finished = runs.finished(workdir, stored)
    except OSError as error:
        raise InputError(
            f"got --workdir={workdir}, need a folder that can be written"
            f" ({error.strerror}); name another"
        ) from error
    if finished is not None:
        print(f"{workdir} is finished")
        console.print_summary(finished, config.eval.top_k)
        return
    dataset = assembly.load_data(config, default_name=default_name, fallback=fallback)
    note = _embedded_note(config, dataset, default_name)
    if note:
        print(note, flush=True)
    validation = None
    if config.data.val_examples:
        dataset, validation = datasets.hold_out(dataset, config.data.val_examples)
    if config.train.batch_size > len(dataset.train.labels):
        raise InputError(
            f"got train.batch_size={config.train.batch_size}, need at most"
            f" {len(dataset.train.labels)}, the training pictures of {dataset.name}"
        )
    mesh = assembly.choose_mesh(config)
    recipe = assembly.make_recipe(config, dataset.num_classes)
    preprocessing = assembly.make_preprocessing(config)
    shape = preprocessing.output_shape(dataset.image_shape)
    try:
        console.print_setup(
            recipe.model,
            shape,
            dataset,
            batch_size=config.train.batch_size,
            mesh=mesh,
            mode=config.parallel.mode,
        )
    except ValueError as error:
        raise InputError(
            f"{config.model.name} does not fit {dataset.name}: {error}"
        ) from error
    runs.check_same_data(workdir, dataset.fingerprint, dataset.name)
    _check_not_past(workdir, config.train.steps)
    about = manifest.describe(
        mesh,
        mode=config.parallel.mode,
        data={
            "name": dataset.name,
            "version": dataset.version,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.class_names),
        },
    )
    make_update = assembly.make_update(
        config, recipe, dataset.train, preprocessing, mesh
    )

    def start(first_step: int, clocks: Clocks) -> Update:
        # Only here can the run no longer be refused, and its manifest be replaced.
        runs.write_json(workdir / runs.MANIFEST, about)
        return make_update(first_step, clocks)

    with runs.open_run(
        workdir, config.to_dict(), steps_may_change=assembly.steps_may_change(config)
    ):
        final = training.train_and_evaluate(
            recipe,
            dataset,
            start,
            partial(
                tensorboard.open_board,
                workdir,
                wanted=config.train.tensorboard,
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
            seed=config.seed,
            batch_size=config.train.batch_size,
            mesh=mesh,
            mode=config.parallel.mode,
            workdir=workdir,
        )
        runs.write_json(workdir / runs.FINAL_METRICS, final)
    console.print_summary(final, config.eval.top_k)
    if note:
        print(note, flush=True)


def evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates a run on the whole test set of the data that `config` names; prints.

    Args:
        config: the run's, perhaps with other data.
        workdir: of the run; it is left as it is.

    Returns:
        `test/accuracy`, `test/correct`, `test/count`, `test/loss`, and the same of
        `test_ema` where the run keeps an average.

    Raises:
        InputError: the data have other classes or do not fit; or no checkpoint.
    """
    trained_on = runs.trained_on(workdir)["name"]
    dataset = assembly.load_data(config, default_name=trained_on, fallback=trained_on)
    inference.check_same_classes(workdir, dataset.class_names, dataset.name)
    mesh = assembly.choose_mesh(config)
    recipe = assembly.make_recipe(config, dataset.num_classes)
    preprocessing = assembly.make_preprocessing(config)
    like = init_state(
        recipe.model,
        recipe.tx,
        seed=config.seed,
        image_shape=preprocessing.output_shape(dataset.image_shape),
        ema=recipe.ema_decay > 0,
    )
    state = inference.restore(workdir, parallel.replicate(like, mesh))
    evaluator = Evaluator(
        recipe.model,
        recipe.loss_fn,
        preprocessing,
        batch_size=config.eval.batch_size,
        top_k=config.eval.top_k,
        mesh=mesh,
        mode=config.parallel.mode,
        clocks=Clocks(),
    )
    values = training.evaluate_all(evaluator, state, dataset.test, "test")
    for prefix in ("test", "test_ema"):
        if f"{prefix}/accuracy" in values:
            line = writer.precision_line(
                values, prefix, dataset.name, config.eval.top_k
            )
            print(line)
    return values


def default_workdir(config_name: str) -> Path:
    """Returns `runs/<config>-<date-time>`, in the current folder."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{config_name}-{now}"


def _check_not_past(workdir: Path, steps: int) -> None:
    """Refuses fewer steps than are done, before the run's configuration is replaced."""
    saved = (workdir / runs.CHECKPOINTS).glob("*")
    done = max((int(p.name) for p in saved if p.name.isdecimal()), default=0)
    if done > steps:
        raise InputError(
            f"{workdir} has done {done} steps, got train.steps={steps}; ask for at"
            " least as many or name another --workdir"
        )


def _embedded_note(config: ConfigDict, dataset: Dataset, default_name: str) -> str:
    if config.data.source == "embedded" or config.data.name or config.data.dir:
        return ""
    if dataset.name == default_name or config.data.source != "tfds":
        return ""
    return (
        f"{default_name} is not on this machine and cannot be downloaded: this run uses"
        f" the embedded data set '{dataset.name}', and its accuracy says nothing about"
        f" {default_name}"
    )
