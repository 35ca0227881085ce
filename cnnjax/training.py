"""The training loop: trains, evaluates, saves checkpoints and logs metrics."""

import dataclasses
import math
import os
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax

from cnnjax.errors import RunError
from cnnjax.evaluation import evaluate_state
from cnnjax.metrics import first_not_finite, mean_of, with_spread
from cnnjax.models.facts import facts_of
from cnnjax.recipe import Recipe
from cnnjax.reporting import console, metrics_log, tensorboard
from cnnjax.run import Run
from cnnjax.runtime import processes, signals
from cnnjax.runtime.clocks import Clocks
from cnnjax.workdir import files, manifest
from cnnjax.workdir.checkpoints import Checkpoints


def train_and_evaluate(
    run: Run, workdir: Path, *, stop: signals.StopRequest
) -> dict[str, Any]:
    """Trains from the newest checkpoint of `workdir`, or from the start, to the end.

    `workdir` is opened by `files.open_run`. A data set without a test split is tested
    on the validation split, with keys `val/...`.

    Returns:
        The content of `final_metrics.json`.

    Raises:
        InputError: `workdir` holds another network.
        RunError: a loss, gradient or parameter is not finite, or a checkpoint could not
            be written; the message says which checkpoint is kept, if any. Or the last
            update diverged, which shows in the loss on the test set.
        StopRequestedError: a signal asked for it; the state has been saved.
    """
    train, seed = run.config.train, run.config.seed
    held_out = run.dataset.test if run.validation is None else run.validation
    split = {"eval/split": "test" if run.validation is None else "validation"}
    examples = run.config.num_seeds * train.batch_size
    has_dropout = facts_of(run.recipe.model).has_dropout
    state, clocks = run.init_state(), Clocks()
    saved = workdir / files.CHECKPOINTS
    with Checkpoints(saved, run=run.identity(files.began(workdir))) as checkpoints:
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            state, clocks = restored[0], Clocks(**restored[1])
        first = int(np.ravel(state.step)[0])
        if first:
            print(f"resuming {workdir} at step {first}", flush=True)
        log_file = Path(os.devnull)
        if processes.is_first():
            # Nothing refuses the run after this, so its manifest may be replaced.
            about = manifest.describe(run.partitioner, run.dataset)
            files.write_json(workdir / files.MANIFEST, about)
            log_file = workdir / files.METRICS
            files.drop_metrics_after(log_file, first)
        evaluator, update = run.evaluator(clocks), run.updates(first, clocks)
        with (
            tensorboard.open_board(
                workdir,
                first,
                wanted=train.tensorboard
                and run.config.num_seeds == 1
                and processes.is_first(),
                look=tensorboard.make_look(
                    run.recipe, run.dataset.train, seed, train.batch_size
                ),
            ) as board,
            metrics_log.Writer(log_file, board.scalars) as log,
            console.bar(first, train.steps) as advance,
        ):
            since, evaluated = (first, clocks.train_seconds), None
            every = [train.eval_every, train.checkpoint_every]
            if first < train.steps:
                advance(first, "compiling")
            if has_dropout:  # only a call's first accuracy is without dropout
                every.append(train.log_every)
            for steps in calls(first, train.steps, update.steps_per_call, every):
                logged = [step for step in steps if step % train.log_every == 0]
                done, last = steps.stop, steps.stop == train.steps
                state, metrics = update(state, steps, fetch=bool(logged))
                if logged:
                    seconds = (clocks.train_seconds - since[1]) / (done - since[0])
                    since = (done, clocks.train_seconds)
                for step in logged:
                    values = of_step(metrics, step - steps.start)
                    check_finite(values, step, seed, checkpoints.steps())
                    log_training(log, values, step, run.recipe, seconds, examples)
                due = last or is_due(done, train.eval_every)
                saving = last or is_due(done, train.checkpoint_every)
                if due or saving:
                    with clocks.training():  # a GPU may still compute them
                        values = of_step(metrics, len(steps) - 1)
                    check_finite(values, done - 1, seed, checkpoints.steps())
                    board.look(done, state.variables)
                # Before saving: the log then has the evaluation of every checkpoint.
                score = None
                if due:
                    advance(done, "evaluating")
                    evaluated = evaluate_state(evaluator, state, held_out, "eval")
                    log.write(done, evaluated | split)
                    if run.validation is not None:
                        score = score_of(evaluated)
                # Read after the evaluation, which takes time; all processes must agree.
                stopping = processes.largest(stop.signum or 0)
                if saving or stopping or checkpoints.best.is_beaten_by(score):
                    about = dataclasses.asdict(clocks)
                    checkpoints.save(done, state, about, score=score)
                checkpoints.check()
                advance(done)
                stop_if(stopping, workdir, done)
        # A search does not load the test split.
        last_of, prefix = run.dataset.test, "test"
        if run.validation is not None and not len(run.dataset.test.labels):
            last_of, prefix = run.validation, "val"
        count, views = len(last_of.labels), run.config.eval.views
        if evaluated is not None and last_of is held_out:
            tested = {k.replace("eval", prefix, 1): v for k, v in evaluated.items()}
        else:
            print(f"evaluating on {count:,} pictures", flush=True)
            tested = evaluate_state(evaluator, state, last_of, prefix)
        if views > 1:
            print(f"evaluating on {views} views of {count:,} pictures", flush=True)
            multiview = run.evaluator(clocks, views)
            tested |= evaluate_state(multiview, state, last_of, f"{prefix}_multiview")
        stop_if(processes.largest(stop.signum or 0), workdir, train.steps)
        check_tested(tested, train.steps, seed)
        best = checkpoints.best.record
    if best is not None:
        tested |= {"best/step": best["step"], "best/eval_accuracy": best["score"]}
    return {
        "dataset": run.dataset.name,
        "steps": train.steps,
        "num_params": optax.tree.size(state.params) // run.config.num_seeds,
        **tested,
        "train_seconds": clocks.train_seconds,
        "perf/examples_per_sec": train.steps * examples / clocks.train_seconds,
        "compile_seconds": clocks.compile_seconds,
    }


def calls(
    first: int, steps: int, steps_per_call: int, every: Sequence[int]
) -> Iterator[range]:
    """Splits a run's steps from `first` to `steps` into compiled calls.

    Calls end at every multiple of each number in `every`, where 0 means never, and of
    `steps_per_call`, so that a resumed run makes the same calls.
    """
    periods = [period for period in (steps_per_call, *every) if period]
    while first < steps:
        end = min(steps, *((first // period + 1) * period for period in periods))
        yield range(first, end)
        first = end


def is_due(done: int, every: int) -> bool:
    """Returns whether `done` steps are a multiple of `every`; 0 means never."""
    return every > 0 and done % every == 0


def stop_if(signum: int | None, workdir: Path, done: int) -> None:
    """Raises StopRequestedError for a signal, and says how the run goes on.

    `done` steps of the run in `workdir` are saved; 0 and None are no signal.
    """
    if signum:
        raise signals.StopRequestedError(
            signum,
            f"{signal.Signals(signum).name}: stopped at step {done}, saved; the same"
            f" command goes on, with --workdir={shlex.quote(str(workdir))}",
        )


def of_step(metrics: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Returns the metrics of the i-th step: numbers, or lists with one per seed."""
    return {k: np.atleast_1d(v)[..., i].tolist() for k, v in metrics.items()}


def score_of(evaluated: Mapping[str, Any]) -> float:
    """Returns the accuracy that ranks checkpoints; NaN where the loss is not finite.

    Several seeds share a checkpoint and are ranked by their mean.
    """
    finite = np.isfinite(evaluated["eval/loss"]).all()
    return float(np.mean(evaluated["eval/accuracy"])) if finite else math.nan


def check_finite(
    metrics: Mapping[str, Any], step: int, seed: int, saved: Sequence[int]
) -> None:
    """Raises RunError if a loss or the gradient of a step is NaN or infinite.

    `metrics` are from `of_step`; `seed` is the run's, or the first of several; `saved`
    are the steps of its checkpoints, in order.
    """
    kept = "no checkpoint has been saved yet"
    if saved:
        kept = f"the last good checkpoint is kept, of step {saved[-1]}"
    advice = "lower optim.learning_rate in another --workdir, or look at the data"
    if step == 0:  # the metrics are of the parameters before the step
        advice = "no update has been made, so look at the network and at the data"
    for part in ("cross_entropy", "l2", "grad_norm"):
        bad = first_not_finite(metrics[part], seed)
        if bad:
            raise RunError(f"{part} is {bad} at step {step}; {kept}: {advice}")


def check_tested(tested: Mapping[str, Any], steps: int, seed: int) -> None:
    """Raises RunError if a loss of the final evaluation is NaN or infinite.

    The last step's metrics are of the parameters before it, and cannot show this.
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
    """Writes a step's line to `metrics.jsonl` and the chapter's lines to the console.

    The chapter prints the training accuracy of its MNIST network alone, this of all.
    `metrics` are from `of_step`; `seconds` is the duration of one step and `examples`
    its number of examples, over all seeds.
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
    accuracy = mean_of(values, "train/accuracy")
    print(f"step {step}, training accuracy {accuracy:.2f}")
