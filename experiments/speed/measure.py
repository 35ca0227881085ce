"""The benchmark: times the cases of each group in alternation, and writes results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from cnnjax.workdir import files, manifest
from speed import ours, output
from speed.groups import GROUPS, network_cases
from speed.timing import alternate, compare, row

# Idle threads of other libraries busy-wait for a while before they sleep.
PAUSE_SECONDS = 0.2
RESULTS, CHART = "benchmark.json", "benchmark.png"


def measure(
    configs: Mapping[str, ConfigDict],
    groups: Sequence[str],
    rounds: int,
    out: Path,
    profile: Path | None,
) -> None:
    """Measures, prints the tables, and writes `benchmark.json` and `benchmark.png`.

    Args:
        configs: name of a file in `experiments/configs` -> its configuration.
        groups: some of the names in `GROUPS`.
        rounds: number of times that each case is timed.
        out: folder for the results.
        profile: folder for a trace of five training steps of "base", or None.

    Raises:
        InputError: `out` cannot be written.
    """
    with files.writing(out, "out"):
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).touch()  # fails now rather than after ten minutes
    result = manifest.describe_machine(ours.noise_run(configs["base"]).partitioner)
    result["data"] = {"name": "noise of the shapes of cifar10 and mnist"}
    measured: dict[str, Any] = {}
    for group in groups:
        cases, pairs = GROUPS[group](configs)
        pause = PAUSE_SECONDS if group == "peers" else 0.0
        timed = alternate(cases, rounds, pause=pause)
        peak = timed.get("matrix product")
        measured[group] = {
            "cases": {name: row(times, peak) for name, times in timed.items()},
            "ratios": compare(timed, pairs),
        }
        output.print_group(group, measured[group])
    result |= {"rounds": rounds, "groups": measured}
    (out / RESULTS).write_text(json.dumps(result, indent=2) + "\n")
    output.chart(measured, out / CHART)
    print(f"wrote {out / RESULTS} and {out / CHART}")
    if profile is not None:
        case = network_cases({"base": configs["base"]})[0]
        case.run()
        with jax.profiler.trace(str(profile)):
            for _ in range(5):
                case.run()
        print(f"wrote a trace of five training steps of CifarCNN to {profile}")
