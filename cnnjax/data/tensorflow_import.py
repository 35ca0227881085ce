"""Imports TensorFlow without its start-up messages, for use on the CPU only."""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

from cnnjax.errors import MissingPackageError

# The variable by which TensorFlow is told to use the older Keras, `tf_keras`.
LEGACY = "TF_USE_LEGACY_KERAS"


def import_tensorflow(*, datasets: bool = False) -> Any:
    """Returns the module `tensorflow`, kept quiet and away from GPUs.

    With `datasets`, `tensorflow_datasets` is imported too. With TF_CPP_MIN_LOG_LEVEL=0
    in the environment, start-up messages are shown.

    Raises:
        MissingPackageError: TensorFlow or TensorFlow Datasets is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _quiet_import(), contextlib.ExitStack() as after:
            # Else it imports Keras 3, which takes half of the time and 100 MB; where
            # the older Keras is not installed, it goes on with none until one is used.
            if LEGACY not in os.environ and not importlib.util.find_spec("tf_keras"):
                os.environ[LEGACY] = "1"
                after.callback(os.environ.pop, LEGACY)
            tf = importlib.import_module("tensorflow")
            if datasets:
                importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise MissingPackageError(
            f"TensorFlow or TensorFlow Datasets is not installed ({error.name}); "
            "data.source=tfds reads with them; install them or use another source"
        ) from error
    # This fails if TensorFlow already uses the GPUs, which the caller then wanted.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Discards what C++ code writes to stderr; exceptions are still raised."""
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
