"""The figures of a step: whether they are sound, and what is said of them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax import spread
from cnnjax.errors import RunError
from cnnjax.reporting import writer
from cnnjax.updates import Recipe


def of_step(metrics: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Returns the figures of the i-th step: numbers, or lists of those of each seed."""
    return {k: np.atleast_1d(v)[..., i].tolist() for k, v in metrics.items()}


def score(evaluated: Mapping[str, Any]) -> float:
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
        bad = spread.not_finite(metrics[part], seed)
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
        bad = spread.not_finite(value, seed) if name.endswith("/loss") else ""
        if bad:
            raise RunError(
                f"{name} is {bad} after step {steps}: the network has diverged; lower"
                " optim.learning_rate, and train in another --workdir"
            )


def log_training(
    log: writer.Writer,
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
    values = spread.with_spread(values)
    log.write(step, values)
    print(writer.training_line(values, step), flush=True)
    if recipe.has_dropout:
        accuracy = spread.mean(values, "train/accuracy")
        print(f"step {step}, training accuracy {accuracy:.2f}")
