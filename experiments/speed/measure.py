"""The benchmark: times the cases of each group in alternation, and writes results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax.workdir import files, manifest
from speed import kernels, ours, output
from speed.groups import GROUPS
from speed.timing import Case, alternate, compare, row

# Idle threads of other libraries busy-wait for a while before they sleep.
PAUSE_SECONDS = 0.2
RESULTS, CHART = "benchmark.json", "benchmark.png"
KERNELS = "kernels"  # not a table of times


def measure(
    configs: Mapping[str, ConfigDict],
    groups: Sequence[str],
    rounds: int,
    out: Path,
    profile: Path | None,
) -> None:
    """Measures, prints the tables, and writes `benchmark.json` and `benchmark.png`.

    Results are written as they come, so that a stop loses only what it is at.

    Args:
        configs: name of a file in `experiments/configs` -> its configuration.
        groups: some of the names in `GROUPS`, or `KERNELS`.
        rounds: number of times that each case is timed.
        out: folder for the results.
        profile: folder that keeps the traces of the group `KERNELS`, or None.

    Raises:
        InputError: `out` cannot be written.
    """
    with files.writing(out, "out"):
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).touch()  # fails now rather than after ten minutes
    result = manifest.describe_machine(ours.noise_run(configs["base"]).partitioner)
    result["data"] = {"name": "noise of the shapes of cifar10 and mnist"}
    measured: dict[str, Any] = {}
    result |= {"rounds": rounds, "groups": measured}
    for group in groups:
        if group == KERNELS:
            measured[group] = {"programs": {}}
            for program, found in kernels.measure(configs, profile):
                output.print_kernels(program, found)
                measured[group]["programs"][program] = found
                files.write_json(out / RESULTS, result)
            continue
        measured[group] = {"cases": {}, "ratios": {}}
        for cases, pairs in GROUPS[group](configs):
            pause = PAUSE_SECONDS if group in ("peers", "batches") else 0.0
            part = _timed(cases, pairs, rounds, pause)
            output.print_group(group, part)
            for name, values in part.items():
                measured[group][name] |= values
            files.write_json(out / RESULTS, result)
    drawn = output.chart(measured, out / CHART)
    print(f"wrote {out / RESULTS}" + (f" and {out / CHART}" if drawn else ""))


def _timed(
    cases: Sequence[Case],
    pairs: Sequence[tuple[str, str]],
    rounds: int,
    pause: float,
) -> dict[str, dict[str, Any]]:
    timed = alternate(cases, rounds, pause=pause)
    peak = timed.get("matrix product")
    return {
        "cases": {name: row(times, peak) for name, times in timed.items()},
        "ratios": compare(timed, pairs),
    }
