"""The one loop, and the one stateful place."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Dataset, Split
from cnnjax.errors import InputError, RunError
from cnnjax.evaluation import Evaluator, summarise
from cnnjax.metrics import first_not_finite, mean_of, with_spread
from cnnjax.replicas import start_state
from cnnjax.reporting import console, metrics_log
from cnnjax.reporting.tensorboard import Board
from cnnjax.runtime import processes, signals
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import TrainState, num_params
from cnnjax.updates import Recipe, Update
from cnnjax.workdir import files
from cnnjax.workdir.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How long a run is and how often it speaks, in steps; 0 is never."""

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int


def calls(
    first: int, cadence: Cadence, steps_per_call: int, *, split_at_logs: bool
) -> Iterator[range]:
    """Yields the steps of each call, from `first` to the end of the run.

    A call ends where something is due: an evaluation, a checkpoint, a line that takes
    the parameters as they were before its step. It also ends at the multiples of
    `steps_per_call`, so that a resumed run makes the same calls.
    """
    periods = [steps_per_call, cadence.eval_every, cadence.checkpoint_every]
    if split_at_logs:
        periods.append(cadence.log_every)
    while first < cadence.steps:
        ends = [(first // every + 1) * every for every in periods if every]
        end = min(cadence.steps, *ends)
        yield range(first, end)
        first = end


def is_due(done: int, every: int) -> bool:
    """Returns whether `done` steps are a multiple of `every`; 0 is never."""
    return every > 0 and done % every == 0


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
    with Checkpoints(workdir / files.CHECKPOINTS, run=run) as checkpoints:
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            state, clocks = restored[0], Clocks(**restored[1])
        first = int(np.ravel(state.step)[0])
        _check_start(workdir, first, cadence.steps)
        log_file = Path(os.devnull)
        if processes.is_first():
            log_file = workdir / files.METRICS
            files.drop_metrics_after(log_file, first)
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
            metrics_log.Writer(log_file, board.scalars) as log,
            console.bar(first, cadence.steps) as advance,
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
                    values = of_step(metrics, step - steps.start)
                    check_finite(values, step, seed)
                    log_training(log, values, step, recipe, seconds, examples)
                due = last or is_due(done, cadence.eval_every)
                saving = last or is_due(done, cadence.checkpoint_every)
                if due or saving:
                    check_finite(of_step(metrics, len(steps) - 1), done - 1, seed)
                    board.look(done, state.params)
                # Evaluated first, so that a checkpoint's line is always there.
                score = None
                if due:
                    evaluated = evaluate_all(evaluator, state, held_out, "eval")
                    log.write(done, evaluated | split)
                    if validation is not None:
                        score = score_of(evaluated)
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
        check_tested(tested, cadence.steps, seed)
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


def of_step(metrics: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Returns the figures of the i-th step: numbers, or lists of those of each seed."""
    return {k: np.atleast_1d(v)[..., i].tolist() for k, v in metrics.items()}


def score_of(evaluated: Mapping[str, Any]) -> float:
    """Returns what the best checkpoint is chosen by: NaN where the loss is not finite.

    Several seeds share a checkpoint: theirs is the mean.
    """
    finite = np.isfinite(evaluated["eval/loss"]).all()
    return float(np.mean(evaluated["eval/accuracy"])) if finite else math.nan


def check_finite(metrics: Mapping[str, Any], step: int, seed: int) -> None:
    """Raises RunError where a loss or a gradient of a step is not finite.

    Args:
        metrics: from `of_step`.
        step: that they are of.
        seed: of the run, or the first of several.
    """
    for part in ("cross_entropy", "l2", "grad_norm"):
        bad = first_not_finite(metrics[part], seed)
        if bad:
            raise RunError(
                f"{part} is {bad} at step {step}; the last good checkpoint"
                " is kept: lower optim.learning_rate, or look at the data"
            )


def check_tested(tested: Mapping[str, Any], steps: int, seed: int) -> None:
    """Raises RunError where a loss of the last evaluation is not finite.

    The figures of a step are of the parameters before it, and say nothing of what the
    last one made of them.

    Args:
        tested: what is to be written to `final_metrics.json`.
        steps: of the run.
        seed: of the run, or the first of several.
    """
    for name, value in tested.items():
        bad = first_not_finite(value, seed) if name.endswith("/loss") else ""
        if bad:
            raise RunError(
                f"{name} is {bad} after step {steps}: the network has diverged; lower"
                " optim.learning_rate, and train in another --workdir"
            )


def log_training(
    log: metrics_log.Writer,
    metrics: Mapping[str, Any],
    step: int,
    recipe: Recipe,
    seconds: float,
    examples: int,
) -> None:
    """Writes the line of a step to `metrics.jsonl` and the chapter's to the console.

    Args:
        log: of the run.
        metrics: from `of_step`.
        step: that they are of.
        recipe: for the learning rate, and whether the chapter prints the accuracy.
        seconds: a step takes.
        examples: in a step, of all seeds.
    """
    values = {
        "train/loss": metrics["loss"],
        "train/cross_entropy": metrics["cross_entropy"],
        "train/l2": metrics["l2"],
        "train/accuracy": metrics["accuracy"],
        "train/learning_rate": float(recipe.schedule(step)),
        "perf/examples_per_sec": examples / seconds,
        "perf/sec_per_batch": seconds,
    }
    values = with_spread(values)
    log.write(step, values)
    print(metrics_log.training_line(values, step), flush=True)
    if recipe.has_dropout:
        accuracy = mean_of(values, "train/accuracy")
        print(f"step {step}, training accuracy {accuracy:.2f}")
