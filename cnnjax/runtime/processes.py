"""Many processes as one run: joining, agreeing, and failing together.

The state is the same in every process, each makes its own rows of every batch, and the
first alone prints and writes. What goes between them is JAX's own, and small.
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

# As long as JAX waits by itself: a cluster may start its hosts minutes apart.
JOIN_SECONDS = 300
# They leave within moments of each other, unless one failed by itself.
LEAVE_SECONDS = 30


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Makes this process one of many; call it before anything asks for a device.

    Args:
        coordinator: HOST:PORT on which process 0 listens; "" where SLURM, Open MPI or
            the cloud tells JAX.
        num_processes: how many there are; 0 likewise.
        process_id: which of them this one is, from 0; -1 likewise.

    Raises:
        InputError: they do not all answer in `JOIN_SECONDS`, have unequal numbers of
            devices, or JAX cannot tell which there are.
    """
    # Its handler of SIGTERM would take the place of ours while a run starts.
    jax.config.update("jax_enable_preemption_service", False)
    errors: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                coordinator or None,
                num_processes or None,
                None if process_id < 0 else process_id,
                # Where JAX itself gives up it aborts, with a trace of C++.
                initialization_timeout=JOIN_SECONDS + LEAVE_SECONDS,
                shutdown_timeout_seconds=LEAVE_SECONDS,
            )
        except Exception as error:  # Whatever finding out about a cluster raises.
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
    """Returns everyone's `value`, any JSON, in the order of the processes.

    All must call it, as often and in the same order as all that they compute together.
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
    """Returns the largest of everyone's `value`, int32; all must call it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def check_same(config: Mapping[str, Any]) -> None:
    """Raises InputError, in every process, where they were given other configurations.

    Args:
        config: flat, without what may differ.
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
    """Drops what other processes than the first print in the block; errors remain."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def together() -> Iterator[Callable[..., None]]:
    """Has an error of one process end all of them, instead of leaving them to wait.

    Yields:
        `meet(last=False)`, which all call at the same places and nobody passes if one
        has failed. Between the beginning and the last meeting nothing may be computed
        together.

    Raises:
        InputError: another process failed with one, before the last meeting.
        RunError: another process failed otherwise, or was lost afterwards.
    """
    over = False

    def meet(last: bool = False) -> None:
        nonlocal over
        over = over or last
        for process, failed in enumerate(gather(None)):
            if failed is not None:
                over = True
                kind = InputError if failed["is_input"] else RunError
                raise kind(f"process {process} failed: {failed['message']}")

    try:
        yield meet
        if not over:
            meet(last=True)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        # JAX would wait for the lost one as it leaves, and abort.
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
