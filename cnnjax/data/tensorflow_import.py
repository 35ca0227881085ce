"""Imports TensorFlow the way this project needs it: quiet, and on the CPU."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from cnnjax.errors import MissingPackageError


def import_tensorflow() -> Any:
    """Imports TensorFlow without its chatter, and keeps it off the accelerators.

    TF_CPP_MIN_LOG_LEVEL, which TensorFlow itself obeys, asks for the chatter with 0.

    Returns:
        the module `tensorflow`.

    Raises:
        MissingPackageError: it, or TensorFlow Datasets, is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _quiet_import():
            tf = importlib.import_module("tensorflow")
            importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise MissingPackageError(
            f"TensorFlow or TensorFlow Datasets is not installed ({error.name}); "
            "data.source=tfds reads with them; install them or use another source"
        ) from error
    # It refuses once it has started on them; then the caller has chosen so.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Drops what C++ writes to stderr; an import that fails still raises."""
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0":
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
