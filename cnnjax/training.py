"""The one loop, and the one stateful place."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cnnjax import monitor, processes, runs, signals
from cnnjax.cadence import Cadence, calls, is_due
from cnnjax.checkpoints import Checkpoints
from cnnjax.clocks import Clocks
from cnnjax.data.augment import Preprocessing
from cnnjax.data.datasets import Dataset, Split
from cnnjax.errors import InputError
from cnnjax.evaluation import Evaluator, summarise
from cnnjax.replicas import start_state
from cnnjax.reporting import progress, writer
from cnnjax.reporting.tensorboard import Board
from cnnjax.state import TrainState, num_params
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
    num_views: int,
    seed: int,
    num_seeds: int,
    batch_size: int,
    mesh: Mesh,
    mode: str,
    workdir: Path,
    run: Mapping[str, Any],
    stop: signals.StopRequest,
) -> dict[str, Any]:
    """Trains from the newest checkpoint of `workdir`, or from the seed, to the end.

    Args:
        recipe: network, loss and optimiser.
        dataset: what is trained and tested on; one without a test split is tested on
            the validation split, and its figures are called `val/...`.
        make_update: (first step, clocks) -> what does the updates from there on.
        open_board: first step -> TensorBoard's files, which may be none.
        validation: evaluated during training in place of the test set; or None.
        preprocessing: of test pictures too, but for the distortions.
        cadence: steps, and how often to log, evaluate and save.
        eval_batch_size: pictures at a time in evaluations.
        top_k: a prediction is right when the label is among the first `top_k`.
        num_views: of each test picture, see `views.take`; reported beside the single
            view, at the end.
        seed: of the run.
        num_seeds: how many replicas are trained, of the seeds from `seed` on.
        batch_size: of the global batch, and of each replica's.
        mesh: the devices.
        mode: `jit` or `pmap`.
        workdir: an open run, see `runs.open_run`.
        run: what it is known by, see `identity.of_run`.
        stop: set by the first SIGTERM or Ctrl-C.

    Returns:
        What is written to `final_metrics.json`.

    Raises:
        InputError: `workdir` is past `cadence.steps`, or holds another network.
        RunError: a loss, gradient or parameter was not finite, or a checkpoint could
            not be written; the last good state is kept. Or the network has diverged in
            the last update, which its loss on the test set shows.
        StopRequestedError: SIGTERM or Ctrl-C; the state has been saved.
    """
    state = start_state(
        recipe,
        seed=seed,
        num_seeds=num_seeds,
        image_shape=preprocessing.output_shape(dataset.image_shape),
        mesh=mesh,
    )
    clocks = Clocks()
    held_out = dataset.test if validation is None else validation
    examples = num_seeds * batch_size
    split = {"eval/split": "test" if validation is None else "validation"}
    with Checkpoints(workdir / runs.CHECKPOINTS, run=run) as checkpoints:
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            state, clocks = restored[0], Clocks(**restored[1])
        first = int(np.ravel(state.step)[0])
        _check_start(workdir, first, cadence.steps)
        log_file = Path(os.devnull)
        if processes.is_first():
            log_file = workdir / runs.METRICS
            runs.drop_metrics_after(log_file, first)
        evaluator_of = partial(
            Evaluator,
            recipe.model,
            recipe.eval_loss_fn,
            preprocessing,
            num_seeds=num_seeds,
            batch_size=eval_batch_size,
            top_k=top_k,
            mesh=mesh,
            mode=mode,
            clocks=clocks,
        )
        evaluator = evaluator_of()
        update = make_update(first, clocks)
        with (
            open_board(first) as board,
            writer.Writer(log_file, board.scalars) as log,
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
                    values = monitor.of_step(metrics, step - steps.start)
                    monitor.check_finite(values, step, seed)
                    monitor.log_training(log, values, step, recipe, seconds, examples)
                due = last or is_due(done, cadence.eval_every)
                saving = last or is_due(done, cadence.checkpoint_every)
                if due or saving:
                    monitor.check_finite(
                        monitor.of_step(metrics, len(steps) - 1), done - 1, seed
                    )
                    board.look(done, state.params)
                # Evaluated first, so that a checkpoint's line is always there.
                score = None
                if due:
                    evaluated = evaluate_all(evaluator, state, held_out, "eval")
                    log.write(done, evaluated | split)
                    if validation is not None:
                        score = monitor.score(evaluated)
                # Now, as it may have come during the evaluation; all must agree.
                stopping = processes.largest(stop.signum or 0)
                if saving or stopping or checkpoints.best.is_beaten_by(score):
                    about = dataclasses.asdict(clocks)
                    checkpoints.save(done, state, about, score=score)
                checkpoints.check()
                advance(done)
                signals.raise_if(stopping)
        # A search opens no test set.
        last_of, prefix = dataset.test, "test"
        if validation is not None and not len(dataset.test.labels):
            last_of, prefix = validation, "val"
        tested = evaluate_all(evaluator, state, last_of, prefix)
        if num_views > 1:
            multiview = evaluator_of(num_views=num_views)
            tested |= evaluate_all(multiview, state, last_of, f"{prefix}_multiview")
        signals.raise_if(processes.largest(stop.signum or 0))
        monitor.check_tested(tested, cadence.steps, seed)
        best = checkpoints.best.record
    if best is not None:
        tested |= {"best/step": best["step"], "best/eval_accuracy": best["score"]}
    return {
        "dataset": dataset.name,
        "steps": cadence.steps,
        "num_params": num_params(state.params) // num_seeds,
        **tested,
        "train_seconds": clocks.train_seconds,
        "perf/examples_per_sec": cadence.steps * examples / clocks.train_seconds,
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


def evaluate_all(
    evaluator: Evaluator, state: TrainState, split: Split, prefix: str
) -> dict[str, Any]:
    """Returns the figures of the parameters, and of their average if one is kept.

    Args:
        evaluator: of the network.
        state: on the mesh.
        split: the pictures.
        prefix: "eval", "test" or "test_multiview"; the average's figures are under
            `<prefix>_ema`.
    """
    values = summarise(prefix, evaluator(state.params, split))
    if state.ema_params is not None:
        averaged = evaluator(state.ema_params, split)
        values |= summarise(f"{prefix}_ema", averaged)
    return values
