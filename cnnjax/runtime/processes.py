"""Several processes as one run: start, exchange of values, and common failure.

The state is replicated in every process, each makes its own rows of every batch, and
only the first one prints and writes. They communicate through JAX.
"""

import atexit
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax.errors import InputError, RunError, one_line

# JAX's own default: a cluster may start its hosts minutes apart.
JOIN_SECONDS = 300
# Processes end within moments of each other, unless one of them failed.
LEAVE_SECONDS = 30


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Makes this process one of several; call it before any use of a device.

    With SLURM, Open MPI or a cloud that JAX knows, the defaults "", 0 and -1 let JAX
    find out the values.

    Args:
        coordinator: HOST:PORT on which process 0 listens, or "".
        num_processes: number of processes, or 0.
        process_id: index of this process, or -1.

    Raises:
        InputError: not all processes answer within `JOIN_SECONDS`, they have unequal
            numbers of devices, or JAX cannot find out the values.
    """
    # JAX's handler of SIGTERM would replace that of `signals` while a run starts.
    jax.config.update("jax_enable_preemption_service", False)
    errors: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                coordinator or None,
                num_processes or None,
                None if process_id < 0 else process_id,
                # After JAX's own timeout it would abort, with a C++ stack trace.
                initialization_timeout=JOIN_SECONDS + LEAVE_SECONDS,
                shutdown_timeout_seconds=LEAVE_SECONDS,
            )
        except Exception as error:  # Each kind of cluster raises its own exceptions.
            errors.append(error)

    joining = threading.Thread(target=initialize, daemon=True)
    joining.start()
    joining.join(JOIN_SECONDS)
    if joining.is_alive():
        raise InputError(
            f"no answer from all of {num_processes or 'the'} processes at"
            f" {coordinator or 'the coordinator'} in {JOIN_SECONDS} s, need every one"
            " of them started and that address reachable; see to"
            " --config.parallel.coordinator"
        )
    if errors:
        raise InputError(
            f"these processes cannot be joined ({one_line(errors[0])});"
            " need --config.parallel.coordinator=HOST:PORT, num_processes and"
            " process_id wherever no cluster tells them to JAX"
        )
    owners = [device.process_index for device in jax.devices()]
    counts = [owners.count(process) for process in range(jax.process_count())]
    if len(set(counts)) > 1:
        raise InputError(
            f"got processes of {counts} devices, need as many of each; set"
            " CUDA_VISIBLE_DEVICES or JAX_NUM_CPU_DEVICES"
        )


def is_first() -> bool:
    """Returns whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """Returns the `value` (any JSON) of every process, in the order of the processes.

    Collective: every process must call it, in the same order.
    """
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:n])) for row, n in zip(rows, sizes, strict=True)]


def largest(value: int) -> int:
    """Returns the largest `value` (int32) of all processes; collective."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def check_same(config: Mapping[str, Any]) -> None:
    """Raises InputError in every process if their flat configurations differ.

    Collective. `config` must not contain the fields that may differ.
    """
    first, *others = gather(dict(config))
    for process, other in enumerate(others, start=1):
        different = [
            f"{name} {first.get(name)!r} and {other.get(name)!r}"
            for name in sorted(first.keys() | other.keys())
            if first.get(name) != other.get(name)
        ]
        if different:
            raise InputError(
                f"processes 0 and {process} were given {', '.join(different)}; need the"
                " same configuration but for parallel.process_id: start all alike"
            )


@contextlib.contextmanager
def only_first_prints() -> Iterator[None]:
    """Discards the standard output of all processes but the first inside the block."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def together() -> Iterator[Callable[..., None]]:
    """Lets an error in one process end all processes, so that none waits for ever.

    Yields:
        `meet(last=False, data="")`, which raises in every process if one of them has
        failed, or gives other `data`, which say what data it has found. Collective:
        every process must call it at the same places. No other collective operation may
        run before the last call (`last=True`, or the block's end).

    Raises:
        InputError: another process raised InputError before the last call of `meet`, or
            has other data.
        RunError: another process raised another error, or was lost.
    """
    over = False

    def meet(last: bool = False, data: str = "") -> None:
        nonlocal over
        over = over or last
        met = gather({"data": data})
        for process, other in enumerate(met):
            if "message" in other:
                over = True
                kind = InputError if other["is_input"] else RunError
                raise kind(f"process {process} failed: {other['message']}")
        for process, other in enumerate(met):
            if other != met[0]:
                over = True
                raise InputError(
                    f"processes 0 and {process} have other data, {met[0]['data']} and"
                    f" {other['data']}; need the same set in each one's data.dir or"
                    " data.file"
                )

    try:
        yield meet
        if not over:
            meet(last=True)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        # On exit JAX would wait for the lost process and then abort.
        atexit.register(os._exit, 1)
        raise RunError(
            "what the processes compute together failed, as where one of them is lost"
            f" ({one_line(error, 200)}); start all of them again"
        ) from error
    except Exception as error:
        if not over:
            is_input = isinstance(error, InputError)
            gather({"is_input": is_input, "message": one_line(error)})
        raise
