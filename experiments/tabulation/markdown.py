"""The tables in Markdown, from what the files of `results` hold."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulation.recording import CURVES, ROWS, Run

# Prefix of a figure in `final_metrics.json` -> what was evaluated.
EVALUATED = {
    "test": "weights",
    "test_ema": "averaged weights",
    "test_multiview": "weights, ten views",
    "test_multiview_ema": "averaged weights, ten views",
}


def summary(rows: Mapping[str, Sequence[Run]]) -> str:
    """Returns a table with one line a recipe.

    Ten views are of the averaged weights where the recipe keeps an average.
    """
    heads = (
        *("configuration", "data", "network", "seeds", "accuracy"),
        *("averaged weights", "ten views", "the chapter"),
    )
    lines = []
    for name, runs in rows.items():
        views = figures(runs, "test_multiview_ema/accuracy") or figures(
            runs, "test_multiview/accuracy"
        )
        seeds = figures(runs, "test/accuracy")
        averaged = figures(runs, "test_ema/accuracy")
        lines.append(
            (
                *_about(name, runs),
                str(len(seeds)),
                *map(percent, (seeds, averaged, views)),
                ROWS[name].chapter,
            )
        )
    return markdown(heads, lines)


def accuracies(rows: Mapping[str, Sequence[Run]], table: str) -> str:
    """Returns a table with a line for each way in which a recipe was evaluated."""
    heads = (
        "run",
        "data",
        "network",
        "evaluated",
        "accuracy of each seed",
        "mean ± std",
    )
    lines = []
    for name, runs in rows.items():
        about = _about(name, runs)
        for key, what in EVALUATED.items():
            values = figures(runs, f"{key}/accuracy")
            if ROWS[name].table == table and values:
                mean = percent(values) if len(values) > 1 else ""
                each = ", ".join(f"{100 * value:.2f}" for value in values)
                lines.append((*about, what, f"{each}%", mean))
                about = ("the same", "", "")
    return markdown(heads, lines)


def losses(rows: Mapping[str, Sequence[Run]]) -> str:
    """Returns a table of the first and the last training losses of `base.py`."""
    heads = ("run", "loss of the first batch", "mean over the last 5% of the steps")
    lines = [
        (
            ROWS[name].label,
            *(
                ", ".join(f"{loss:.2f}" for loss in figures(rows[name], key))
                for key in ("first_loss", "last_loss")
            ),
        )
        for name in ("base", "base on TensorFlow")
        if name in rows
    ]
    return markdown(heads, [*lines, ("the chapter", "about 4.6", "about 1.0")])


def evaluations(rows: Mapping[str, Sequence[Run]]) -> str:
    """Returns a table for each recipe that was tested while it trained.

    Figures are means of the seeds, at the steps at which all of them were tested.
    """
    tables = []
    for name, runs in rows.items():
        lines = []
        for what in CURVES:
            curves = [run["curve"].get(what, {}) for run in runs]
            steps = [step for step in curves[0] if all(step in c for c in curves)]
            if len(steps) > 1:
                at = ([v for c in curves for v in _seeds(c[step])] for step in steps)
                lines.append((what, *(percent(values, std=False) for values in at)))
                heads = ("after steps", *(f"{int(step):,}" for step in steps))
        if lines:
            tables.append(f"{ROWS[name].label}:\n\n{markdown(heads, lines)}")
    return "\n\n".join(tables) or "No such run is recorded."


def searched(runs: Sequence[Run]) -> str:
    """Returns a table of the search that chose the learning rates of `lenet5.py`."""
    heads = ("network", "learning rate", "changed", "validation accuracy")
    lines = [
        (
            run["network"],
            f"{run['learning_rate']:g}",
            run["changed"],
            percent([run["validation_accuracy"]]),
        )
        for run in runs
    ]
    return markdown(heads, lines)


def fastest(groups: Mapping[str, Any]) -> str:
    """Returns a table of the speeds of a training step of CifarCNN, the fastest first.

    Args:
        groups: those of a file that benchmark.py wrote.
    """
    libraries = {
        "this project": "cnnjax",
        "Keras on TensorFlow": "Keras on TensorFlow",
        "PyTorch, channels last": "PyTorch channels_last",
        "plain Flax": "plain Flax",
    }
    cases = groups["peers"]["cases"]
    found = {
        name: cases[f"CifarCNN training, {case}"]["images_per_second"]
        for name, case in libraries.items()
    }
    found["the chapter's GTX 1080"] = 1800  # section 5.3
    lines = sorted(found.items(), key=lambda line: -line[1])
    heads = ("a training step of CifarCNN", "images/s")
    return markdown(heads, [(name, f"{speed:,.0f}") for name, speed in lines])


# Groups of the benchmark that the table of speeds has -> what they are of.
GROUPS = {
    **dict.fromkeys(("peers", "shapes"), "a step"),
    "operations": "an operation",
    **dict.fromkeys(("runs", "calls", "seeds"), "a whole run"),
}


def speeds(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table of speeds, one column for each machine and version of JAX.

    A line is a network of this project, with its share of the peak of the matrix
    product where that was measured beside it, or a ratio of two cases: how many times
    as fast the first one is.

    Args:
        columns: head of a column -> groups of the file that benchmark.py wrote there.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for column, groups in columns.items():
        # Not every file has all groups.
        for group, of in ((k, of) for k, of in GROUPS.items() if k in groups):
            lines = {
                _ours(name): _speed(case)
                for name, case in groups[group]["cases"].items()
                if name.endswith(", cnnjax")
            }
            for pair, ratio in groups[group]["ratios"].items():
                one, other = map(_ours, pair.split(" / "))
                other = other.removeprefix(f"{one}, ")
                lines[f"{one}, against {other}"] = f"{ratio:.2f}"
            for what, text in sorted(lines.items()):
                found.setdefault((of, what), {})[column] = text
    return markdown(
        ("of", "what", *columns),
        [
            (*line, *(by_column.get(column, "") for column in columns))
            for line, by_column in found.items()
        ],
    )


def _speed(case: Mapping[str, Any]) -> str:
    """Formats a case's speed, with its share of the peak where that was measured."""
    share = case.get("share_of_peak")
    of_peak = f", {share:.2f} of the peak" if share is not None else ""
    return f"{case['images_per_second']:,.0f} images/s{of_peak}"


def _ours(case: str) -> str:
    return case.removesuffix(", cnnjax")


def _about(name: str, runs: Sequence[Run]) -> tuple[str, str, str]:
    final = runs[0]["final"]
    return (
        f"{ROWS[name].label}, {final['steps']:,} steps of {runs[0]['batch_size']}",
        final["dataset"],
        f"{runs[0]['network']}, {final['num_params']:,} parameters",
    )


def figures(runs: Sequence[Run], key: str) -> list[float]:
    """Returns a figure of each seed, in their order, of the runs that have it."""
    found = (run["final"].get(key, run.get(key)) for run in runs)
    return [value for values in found for value in _seeds(values)]


def _seeds(values: Any) -> list[float]:
    """Returns one value for each seed of a run; none where the run lacks the figure."""
    if values is None:
        return []
    return list(values) if isinstance(values, list) else [values]


def percent(values: Sequence[float], *, std: bool = True) -> str:
    """Formats the mean of some fractions, and their standard deviation (n - 1)."""
    if not values:
        return ""
    text = f"{100 * statistics.mean(values):.2f}%"
    if len(values) == 1 or not std:
        return text
    return f"{text} ± {100 * statistics.stdev(values):.2f}"


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    rows = (heads, *lines)
    head, *rest = (f"| {' | '.join(row)} |".replace("  |", " |") for row in rows)
    return "\n".join([head, f"|{'---|' * len(heads)}", *rest])
