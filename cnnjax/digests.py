"""What is said about the arrays of a state, so that damage to them is noticed."""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def describe(state: Any) -> dict[str, dict[str, Any]]:
    """Returns path -> dtype and shape of every array of a tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path): {
            "dtype": str(leaf.dtype),
            "shape": list(leaf.shape),
        }
        for path, leaf in leaves
    }


def digest(state: Any) -> dict[str, str]:
    """Returns path -> SHA-256 over path, dtype, shape and bytes of every array."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    digests = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        array = np.ascontiguousarray(jax.device_get(leaf))
        header = f"{name} {array.dtype} {array.shape} ".encode()
        digests[name] = hashlib.sha256(header + array.tobytes()).hexdigest()
    return digests


def not_finite(state: Any) -> list[str]:
    """Returns the paths of the arrays that hold a NaN or an infinity."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return [
        jax.tree_util.keystr(path)
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        and not np.isfinite(jax.device_get(leaf)).all()
    ]


def seal(about: Any) -> str:
    """Returns the SHA-256 of what JSON holds, in whatever order it is written."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
