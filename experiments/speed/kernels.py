"""The kernels of a training step: how many there are, and which take the time."""

import collections
import dataclasses
import itertools
import re
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from search import changed
from speed import ours, sizes

NETWORKS, DTYPES = ("base", "mnist"), ("float32", "bfloat16")
TOP = 10
UNTRACED = 3  # measurements of the time without a trace

# A line of a compiled program that begins a computation, or is an instruction.
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([a-z][\w-]*)\(")
CALLED = re.compile(
    r"\b(?:to_apply|body|calls|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%?[\w.-]+)"
)
ROUNDS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# What these do is decided when the program is compiled, or only waits.
NOTHING = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "domain"),
    *("after-all", "add-dependency", "optimization-barrier", "get-dimension-size"),
    *("partition-id", "replica-id", "async-update"),
}
# These do what the computations do that they name, but for small calls on a CPU, which
# are compiled as one.
OUTER = {"while", "call", "conditional", "async-start"}
SMALL_CALL = 'xla_cpu_small_call="true"'


@dataclasses.dataclass(frozen=True)
class Event:
    """A kernel that ran: its name, and begin and end in nanoseconds."""

    name: str
    begin: float
    end: float


def measure(
    configs: Mapping[str, ConfigDict], profile: Path | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "network dtype" and what `kernels_of` says of its training step.

    Args:
        configs: name of a file in `experiments/configs` -> its configuration.
        profile: folder that keeps the traces, or None.
    """
    for name, dtype in itertools.product(NETWORKS, DTYPES):
        config = changed(configs[name], {"model.dtype": dtype})
        label = f"{config.model.name} {dtype}"
        with tempfile.TemporaryDirectory() as temporary:
            folder = profile / label.replace(" ", "-") if profile else temporary
            yield label, kernels_of(config, Path(folder))


def kernels_of(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """Returns what a step's program and a trace of some steps say of its kernels.

    Args:
        config: of the network.
        folder: where the trace is written.

    Returns:
        `kernels_per_step`, see `count`; `milliseconds_per_step` without the trace; and
        what `summary` says of the trace.
    """
    run, steps = ours.noise_run(config), sizes.here().traced_steps
    step, state, batch = ours.training_step(run)

    def train() -> float:
        nonlocal state
        begin = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, batch)
            run.partitioner.wait_for(metrics)
        jax.block_until_ready(metrics)
        return time.perf_counter() - begin

    train()
    # A traced GPU is given kernels one by one, which takes longer.
    seconds = statistics.median(train() for _ in range(UNTRACED))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(str(folder), profiler_options=options):
        train()
    return {
        "kernels_per_step": count(step.as_text()),
        "milliseconds_per_step": 1e3 * seconds / steps,
        **summary(read(folder), steps * run.partitioner.num_devices, seconds),
    }


def count(program: str) -> int:
    """Returns how many kernels a compiled program launches, on each device.

    That is every instruction of its entry computation that does something when it runs:
    fusions, convolutions, products, calls of libraries, copies, fills, collectives. A
    library may launch several kernels for a call, which counts as one. A loop counts as
    its body times its rounds, or once if they are not known, without its condition; of
    the branches of a choice all count.

    Args:
        program: in XLA's text form, optimised and scheduled.
    """
    computations: dict[str, list[str]] = {}
    entry = ""
    for line in program.splitlines():
        if begun := COMPUTATION.match(line):
            name = begun[2]
            computations[name] = []
            entry = name if begun[1] else entry
        elif line.startswith(" ") and computations:
            computations[name].append(line)

    def of(name: str) -> int:
        return sum(map(of_line, computations[name]))

    def of_line(line: str) -> int:
        found = INSTRUCTION.match(line)
        if found is None or found[1] in NOTHING or found[1].endswith("-done"):
            return 0
        if found[1] not in OUTER or SMALL_CALL in line:
            return 1
        named = [each for names in CALLED.findall(line) for each in _names(names)]
        rounds = ROUNDS.search(line)
        return (int(rounds[1]) if rounds else 1) * sum(map(of, named))

    return of(entry)


def _names(text: str) -> list[str]:
    return [name.strip().removeprefix("%") for name in text.strip("{}").split(",")]


def read(folder: Path) -> list[Event]:
    """Returns the kernels of the newest trace in a folder; none if it has none.

    On a GPU these are the kernels and copies of all its streams; on a CPU the
    instructions of compiled programs, without those that contain others.
    """
    traces = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not traces:
        return []
    planes = list(jax.profiler.ProfileData.from_file(str(traces[-1])).planes)
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU:")]
    lines = [line for plane in gpus or planes for line in plane.lines]
    if gpus:
        streams = [line for line in lines if line.name.startswith("Stream")]
        return [_event(found) for line in streams for found in line.events]
    return [
        event
        for line in lines
        for event in innermost(
            _event(found) for found in line.events if "hlo_op" in dict(found.stats)
        )
    ]


def _event(found: Any) -> Event:
    return Event(found.name, found.start_ns, found.start_ns + found.duration_ns)


def innermost(events: Iterable[Event]) -> list[Event]:
    """Returns the events of one thread that contain no others."""
    ordered = sorted(events, key=lambda event: (event.begin, -event.end))
    pairs = itertools.pairwise(ordered)
    inner = [event for event, after in pairs if after.begin >= event.end]
    return inner + ordered[-1:]


def summary(events: Sequence[Event], runs: int, seconds: float) -> dict[str, Any]:
    """Returns what a trace says of a step; nothing if it has no kernels.

    Args:
        events: the kernels of all devices.
        runs: how many steps they are of, times the number of devices.
        seconds: how long these steps take when they are not traced.

    Returns:
        `launches_per_step`; `busy`, the time in which any kernel runs as a share of
        `seconds`, which noise can bring above 1; and `top`: of the ten kernels that
        take longest together `name`, `share` of the time of all kernels,
        `microseconds_per_step` and `launches_per_step`. All are those of one device.
    """
    if not events:
        return {}
    each: dict[str, list[float]] = collections.defaultdict(list)
    for event in events:
        each[event.name].append(event.end - event.begin)
    total = sum(map(sum, each.values()))
    longest = sorted(each.items(), key=lambda item: -sum(item[1]))
    return {
        "launches_per_step": len(events) / runs,
        "busy": _covered(events) / seconds / 1e9,
        "top": [
            {
                "name": name,
                "share": sum(times) / total,
                "microseconds_per_step": sum(times) / runs / 1e3,
                "launches_per_step": len(times) / runs,
            }
            for name, times in longest[:TOP]
        ],
    }


def _covered(events: Iterable[Event]) -> float:
    """Returns the nanoseconds in which at least one of the events takes place."""
    covered = until = 0.0
    for event in sorted(events, key=lambda event: event.begin):
        covered += max(0.0, event.end - max(event.begin, until))
        until = max(until, event.end)
    return covered
