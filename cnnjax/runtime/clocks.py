"""Measures the time spent on training and, separately, on compilation."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@dataclasses.dataclass
class Clocks:
    """Seconds over all sessions of a run, without evaluation, saving and logging.

    Attributes:
        train_seconds: time for waiting for batches and for updates.
        compile_seconds: time for compiling the training step.
    """

    train_seconds: float = 0.0
    compile_seconds: float = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Adds the duration of the block to `train_seconds`."""
        start = time.perf_counter()
        yield
        self.train_seconds += time.perf_counter() - start

    def compile(self, function: Any, *args: Any) -> Any:
        """Compiles a function from `jax.jit` or `jax.pmap` for the shapes of `args`."""
        start = time.perf_counter()
        compiled = function.lower(*args).compile()
        self.compile_seconds += time.perf_counter() - start
        return compiled
