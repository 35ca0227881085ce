"""Time spent training and time spent compiling, apart."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@dataclasses.dataclass
class Clocks:
    """Seconds over all sessions of a run; evaluation, saving and logging are in none.

    Attributes:
        train_seconds: waiting for batches and updating.
        compile_seconds: making programs of steps.
    """

    train_seconds: float = 0.0
    compile_seconds: float = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Adds what the block takes to `train_seconds`."""
        start = time.perf_counter()
        yield
        self.train_seconds += time.perf_counter() - start

    def compile(self, function: Any, *args: Any) -> Any:
        """Returns `function` compiled for `args`, which refuses any other shapes.

        Args:
            function: what `jax.jit` or `jax.pmap` returned.
            *args: arrays, or trees of them.
        """
        start = time.perf_counter()
        compiled = function.lower(*args).compile()
        self.compile_seconds += time.perf_counter() - start
        return compiled
