"""The one loop, and the one stateful place."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cnnjax import parallel, runs, signals
from cnnjax.cadence import Cadence, calls, is_due
from cnnjax.checkpoints import Checkpoints
from cnnjax.clocks import Clocks
from cnnjax.data.augment import Preprocessing
from cnnjax.data.datasets import Dataset, Split
from cnnjax.errors import InputError, RunError
from cnnjax.evaluation import Evaluator, summarise
from cnnjax.reporting import progress, writer
from cnnjax.reporting.tensorboard import Board
from cnnjax.state import TrainState, init_state, num_params
from cnnjax.updates import Recipe, Update


def train_and_evaluate(
    recipe: Recipe,
    dataset: Dataset,
    make_update: Callable[[int, Clocks], Update],
    open_board: Callable[[int], AbstractContextManager[Board]],
    *,
    validation: Split | None,
    preprocessing: Preprocessing,
    cadence: Cadence,
    eval_batch_size: int,
    top_k: int,
    seed: int,
    batch_size: int,
    mesh: Mesh,
    mode: str,
    workdir: Path,
) -> dict[str, Any]:
    """Trains from the newest checkpoint of `workdir`, or from the seed, to the end.

    Args:
        recipe: network, loss and optimiser.
        dataset: what is trained and tested on.
        make_update: (first step, clocks) -> what does the updates from there on.
        open_board: first step -> TensorBoard's files, which may be none.
        validation: evaluated during training in place of the test set; or None.
        preprocessing: of test pictures too, but for the distortions.
        cadence: steps, and how often to log, evaluate and save.
        eval_batch_size: pictures at a time in evaluations.
        top_k: a prediction is right when the label is among the first `top_k`.
        seed: of the run.
        batch_size: of the global batch.
        mesh: the devices.
        mode: `jit` or `pmap`.
        workdir: an open run, see `runs.open_run`.

    Returns:
        What is written to `final_metrics.json`.

    Raises:
        InputError: `workdir` is past `cadence.steps`, or holds another network.
        RunError: a loss or gradient was not finite; the last good state is kept.
        StopRequestedError: SIGTERM or Ctrl-C; the state has been saved.
    """
    state = init_state(
        recipe.model,
        recipe.tx,
        seed=seed,
        image_shape=preprocessing.output_shape(dataset.image_shape),
        ema=recipe.ema_decay > 0,
    )
    clocks = Clocks()
    held_out = dataset.test if validation is None else validation
    split = {"eval/split": "test" if validation is None else "validation"}
    with (
        signals.stop_requests() as stop,
        Checkpoints(workdir / runs.CHECKPOINTS) as checkpoints,
    ):
        state = parallel.replicate(state, mesh)
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            state, clocks = restored[0], Clocks(**restored[1])
        first = int(state.step)
        _check_start(workdir, first, cadence.steps)
        runs.drop_metrics_after(workdir / runs.METRICS, first)
        evaluator = Evaluator(
            recipe.model,
            recipe.loss_fn,
            preprocessing,
            batch_size=eval_batch_size,
            top_k=top_k,
            mesh=mesh,
            mode=mode,
            clocks=clocks,
        )
        update = make_update(first, clocks)
        with (
            open_board(first) as board,
            writer.Writer(workdir / runs.METRICS, board.scalars) as log,
            progress.bar(first, cadence.steps) as advance,
        ):
            since = (first, clocks.train_seconds)
            for steps in calls(
                first,
                cadence,
                update.steps_per_call,
                split_at_logs=recipe.has_dropout,
            ):
                logged = [step for step in steps if step % cadence.log_every == 0]
                done, last = steps.stop, steps.stop == cadence.steps
                state, metrics = update(state, steps, fetch=bool(logged))
                if logged:
                    seconds = (clocks.train_seconds - since[1]) / (done - since[0])
                    since = (done, clocks.train_seconds)
                for step in logged:
                    values = _of_step(metrics, step - steps.start)
                    _check_finite(values, step)
                    _log_training(log, values, step, recipe, seconds, batch_size)
                due = last or is_due(done, cadence.eval_every)
                saving = last or stop or is_due(done, cadence.checkpoint_every)
                if due or saving:
                    _check_finite(_of_step(metrics, len(steps) - 1), done - 1)
                    board.look(done, state.params)
                # Evaluated first, so that a checkpoint's line is always there.
                if due:
                    evaluated = evaluate_all(evaluator, state, held_out, "eval")
                    log.write(done, evaluated | split)
                if saving:
                    checkpoints.save(done, state, dataclasses.asdict(clocks))
                advance(done)
                if stop.signum is not None and not last:
                    raise signals.StopRequestedError(stop.signum)
        tested = evaluate_all(evaluator, state, dataset.test, "test")
    return {
        "dataset": dataset.name,
        "steps": cadence.steps,
        "num_params": num_params(state.params),
        **tested,
        "train_seconds": clocks.train_seconds,
        "perf/examples_per_sec": cadence.steps * batch_size / clocks.train_seconds,
        "compile_seconds": clocks.compile_seconds,
    }


def _check_start(workdir: Path, first: int, steps: int) -> None:
    if first > steps:
        raise InputError(
            f"{workdir} has done {first} steps, got train.steps={steps}; ask for at"
            " least as many or name another --workdir"
        )
    if first:
        print(f"resuming {workdir} at step {first}", flush=True)


def _of_step(metrics: Mapping[str, Any], i: int) -> dict[str, float]:
    return {name: float(np.ravel(values)[i]) for name, values in metrics.items()}


def _check_finite(metrics: Mapping[str, float], step: int) -> None:
    for part in ("cross_entropy", "l2", "grad_norm"):
        if not math.isfinite(metrics[part]):
            raise RunError(
                f"{part} is {metrics[part]} at step {step}; the last good checkpoint"
                " is kept: lower optim.learning_rate, or look at the data"
            )


def _log_training(
    log: writer.Writer,
    metrics: Mapping[str, float],
    step: int,
    recipe: Recipe,
    seconds: float,
    batch_size: int,
) -> None:
    values = {
        "train/loss": metrics["loss"],
        "train/cross_entropy": metrics["cross_entropy"],
        "train/l2": metrics["l2"],
        "train/accuracy": metrics["accuracy"],
        "train/learning_rate": float(recipe.schedule(step)),
        "perf/examples_per_sec": batch_size / seconds,
        "perf/sec_per_batch": seconds,
    }
    log.write(step, values)
    print(writer.training_line(values, step), flush=True)
    if recipe.has_dropout:
        print(f"step {step}, training accuracy {values['train/accuracy']:.2f}")


def evaluate_all(
    evaluator: Evaluator, state: TrainState, split: Split, prefix: str
) -> dict[str, Any]:
    """Returns the figures of the parameters, and of their average if one is kept.

    Args:
        evaluator: of the network.
        state: on the mesh.
        split: the pictures.
        prefix: "eval" or "test"; the average's figures are under `<prefix>_ema`.
    """
    values = summarise(prefix, evaluator(state.params, split))
    if state.ema_params is not None:
        averaged = evaluator(state.ema_params, split)
        values |= summarise(f"{prefix}_ema", averaged)
    return values
