"""A check, its error and bound, and how checks are run and printed."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

# Half of the distance between neighbouring numbers at 1: the largest relative error of
# one rounding. TF32 is how GPUs since Ampere read float32 in products by default.
FLOAT32, TF32, BFLOAT16 = 2.0**-24, 2.0**-11, 2.0**-8

# Elementwise functions take about ten operations, each rounded once or, as the square
# roots of GPUs, a few times.
ELEMENTWISE = 32 * FLOAT32

# DESIGN's bounds on the relative norm of values and of the gradients of a leaf: sums of
# up to 2,304 products a layer, and Winograd's transforms, which enlarge roundings.
LEAF, LEAF_WINOGRAD = 1e-5, 3e-5


Parts = dict[str, tuple[Any, Any, float]]  # name -> got, want, bound


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How far the machine is from the reference, and how far it may be.

    Attributes:
        error: passes if it is at most `bound`; NaN fails.
        bound: at least 0.
        note: what the error is of, or why a check crashed.
        figures: what else was measured, for JSON.
    """

    error: float
    bound: float
    note: str = ""
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the error is within its bound."""
        return self.error <= self.bound


@dataclasses.dataclass(frozen=True)
class Check:
    """One row: what is checked, and the function that checks it."""

    name: str
    run: Callable[[], Outcome]


def default_rounding() -> float:
    """Returns the relative error with which products read float32 by default here."""
    asked = getattr(jax.config, "jax_default_matmul_precision", None)
    if asked in ("highest", "float32"):
        return FLOAT32
    if asked == "bfloat16":
        return BFLOAT16
    return {"cpu": FLOAT32, "gpu": TF32}.get(jax.default_backend(), BFLOAT16)


def sum_bound(terms: int, rounding: float = FLOAT32) -> float:
    """Returns the bound on the relative norm of the error of sums of products.

    The roundings of `terms` additions have random signs, so together they are as large
    as the root of their number. Factors that are themselves rounded to `rounding` give
    that error however many there are, as the errors add up as the products do. Four
    times both is far above what was ever measured and far below what a fault gives.
    """
    inputs = rounding if rounding > FLOAT32 else 0.0
    return 4 * (math.sqrt(terms) * FLOAT32 + inputs)


def network_bounds(rounding: float, *, wide: bool) -> tuple[float, float]:
    """Returns the bounds on a network's values and on the gradients of its leaves.

    `wide` convolutions are those for which Winograd's algorithm may be taken.
    Each of up to seven layers rounds its inputs, and in bfloat16 its output. Where that
    is coarser than float32, ReLUs and pooling windows are switched whose values are
    closer than that: a share of them as large as the error is wrong by all of its
    gradient, which is the root of the share in the norm.
    """
    if rounding > FLOAT32:
        return 8 * rounding, 4 * math.sqrt(rounding)
    return LEAF, LEAF_WINOGRAD if wide else LEAF


def relative(got: Any, want: Any) -> float:
    """Returns |got - want| / |want| of the Euclidean norms, or |got| for want = 0.

    Raises:
        ValueError: the shapes differ.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        raise ValueError(f"got the shape {got.shape}, need {want.shape}")
    return float(np.linalg.norm(got - want) / (np.linalg.norm(want) or 1.0))


def worst(parts: Parts) -> Outcome:
    """Returns the part that comes closest to failing.

    An error that is NaN or above a bound of 0 is the worst.
    """
    found = [
        Outcome(relative(g, w), bound, name) for name, (g, w, bound) in parts.items()
    ]

    def share(one: Outcome) -> float:
        if (one.error and not one.bound) or math.isnan(one.error):
            return math.inf
        return one.error / (one.bound or 1.0)

    return max(found, key=share)


def perform(group: str, checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Runs a group's checks, prints a line for each, and returns the rows for JSON.

    A check that raises has failed, with the exception as its note.
    """
    rows = []
    for check in checks:
        start = time.perf_counter()
        try:
            outcome = check.run()
        except Exception as error:  # one check's crash is that check's failure
            said = " ".join(str(error).split())[:300]
            outcome = Outcome(math.inf, 0.0, f"{type(error).__name__}: {said}")
        row = {
            "group": group,
            "check": check.name,
            "passed": outcome.passed,
            # JSON has neither NaN nor infinity.
            "error": outcome.error if math.isfinite(outcome.error) else None,
            "bound": outcome.bound,
            "note": outcome.note,
            **outcome.figures,
            "seconds": time.perf_counter() - start,
        }
        print(line(row), flush=True)
        rows.append(row)
    return rows


def heading(about: Mapping[str, Any]) -> str:
    """Returns what is checked where, and the head of the lines that follow."""
    devices, versions = about["devices"], about["versions"]
    return (
        f"jax {versions['jax']}, {devices['count']} x {devices['platform']}"
        f" ({', '.join(devices['kinds'])})\n"
        f"{'':4}  {'group':10}  {'check':41} {'error':>8}    {'bound':>7}"
    )


def line(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of at most 80 columns."""
    verdict = "PASS" if row["passed"] else "FAIL"
    error = "none" if row["error"] is None else f"{row['error']:.1e}"
    start = f"{verdict}  {row['group']:10}  {row['check'][:41]:41}"
    if row["group"] == "speed" and row["passed"]:
        return f"{start} {row['note']}"
    return f"{start} {error:>8} of {row['bound']:7.1e}"


def print_summary(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table with a row for each group, and each failure with its note."""
    table = Table(title="the largest error over its bound", title_justify="left")
    for column in ("group", "passed", "failed", "largest", "of", "seconds"):
        right = column not in ("group", "of")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        shares = {
            row["check"]: row["error"] / row["bound"]
            for row in own
            if row["bound"] and row["error"] is not None
        }
        most = max(shares, key=shares.__getitem__, default="")
        failed = sum(not row["passed"] for row in own)
        table.add_row(
            group,
            str(len(own) - failed),
            str(failed),
            f"{shares[most]:.2g}" if most else "",
            most,
            f"{sum(row['seconds'] for row in own):.1f}",
        )
    Console(width=None if Console().is_terminal else 80).print(table)
    for row in rows:
        if not row["passed"]:
            print(f"FAIL  {row['group']}: {row['check']}: {row['note']}")
