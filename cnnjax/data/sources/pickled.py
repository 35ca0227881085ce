"""Reads the pickled form of CIFAR without running anything that a pickle asks for.

Unpickling calls whatever functions a pickle names. So a file is only opened after its
digest has shown that it is the official one, and even then by a reader that can build
arrays, bytes, numbers, lists and dicts and nothing else.
"""

import io
import pickle
from typing import Any

import numpy as np

from cnnjax.errors import InputError, one_line


def decode(content: bytes, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a pickled dict with `data` and a list of labels.

    Returns:
        images uint8 [n, 3072], and labels [n].

    Raises:
        InputError: it is another object, or it asks for anything else to be built.
    """
    problem = ""
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in found.items()}
        images, labels = named["data"], np.asarray(named[label_key])
        if images.dtype != np.uint8 or images.ndim != 2 or labels.dtype.kind != "i":
            problem = f"data {images.dtype} {images.shape}, labels {labels.dtype}"
    # What is no such pickle fails with almost any exception.
    except Exception as error:
        problem = one_line(error, 200)
    if problem:
        raise InputError(
            f"is not a batch of pictures ({problem}); a dict with data and {label_key}"
            " is needed; copy or download it again"
        )
    return images, labels


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Returns one of the functions that arrays and bytes are built with."""
        # NumPy 2 gave its module another name.
        function = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if function is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return function


def _empty(*_: object) -> np.ndarray:
    """Stands for NumPy's `_reconstruct`; the pickle then sets shape and content."""
    return np.zeros(0, np.uint8)


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for `codecs.encode`, with which Python 3 pickles bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _from_buffer(
    buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str
) -> np.ndarray:
    """Stands for NumPy's `_frombuffer`, which pickles of protocol 5 ask for."""
    return np.frombuffer(buffer, dtype).reshape(
        shape, order="F" if order == "F" else "C"
    )


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin1,
}
