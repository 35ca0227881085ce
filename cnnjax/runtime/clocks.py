"""Measures the time spent on training and, separately, on compilation."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@dataclasses.dataclass
class Clocks:
    """Seconds over all sessions of a run, without evaluation, saving and logging.

    Attributes:
        train_seconds: time for waiting for batches and for updates.
        compile_seconds: time for compiling the steps of training and evaluation.
    """

    train_seconds: float = 0.0
    compile_seconds: float = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Adds the duration of the block to `train_seconds`."""
        start = time.perf_counter()
        yield
        self.train_seconds += time.perf_counter() - start


class Compiled:
    """A step from `jit` or `pmap`, compiled once for the shapes of its arguments."""

    def __init__(self, step: Any, clocks: Clocks) -> None:
        self._step, self._clocks = step, clocks
        self._compiled: Any = None

    def prepare(self, *arguments: Any) -> None:
        """Compiles the step for the shapes of `arguments`, the first time."""
        if self._compiled is None:
            start = time.perf_counter()
            self._compiled = self._step.lower(*arguments).compile()
            self._clocks.compile_seconds += time.perf_counter() - start

    def __call__(self, *arguments: Any) -> Any:
        """Calls the step, which has been prepared."""
        return self._compiled(*arguments)


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that gives the same result for the same arguments.

    It remembers the last eight. Arguments that cannot be hashed, such as a network with
    a list in a field, have a new result each time.
    """
    kept = functools.lru_cache(maxsize=8)(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            hash(arguments)
        except TypeError:
            return function(*arguments)
        return kept(*arguments)

    return call
