"""Checks of the compiler and the memory, and the speed of training steps."""

import os
import resource
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cnnjax.parallel import make_partitioner
from cnnjax.workdir import manifest
from speed import ours
from speed.timing import alternate, row
from verification.check import FLOAT32, Check, Outcome, worst

ROUNDS = 5


def describe() -> dict[str, Any]:
    """Returns versions, machine, devices, precision and settings."""
    devices = jax.device_count()
    return manifest.describe_machine(
        make_partitioner(devices, mode="jit", num_seeds=1, batch_size=devices)
    )


def _sums() -> Outcome:
    """Sums three squares for each of 32,769 rows.

    jaxlib 0.10.2 on a CPU takes the last row's from other rows (jax issue 39103).
    """
    rows = np.zeros((2**15 + 1, 3), np.float32)
    rows[:, 0] = np.arange(len(rows))

    @jax.jit
    def sums(matrix: jax.Array, rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    with jax.default_matmul_precision("highest"):
        got = sums(jnp.eye(3), rows)
    # Whole numbers below 2**15, so that only their squares are rounded, once.
    want = (rows.astype(float) ** 2).sum(axis=1)
    return worst({"sums of squares": (got, want, FLOAT32)})


def _memory() -> Outcome:
    """Returns the peak so far as a share of all, of the GPU or else of the host."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        peak, available = stats["peak_bytes_in_use"], stats["bytes_limit"]
    else:
        # The kernel counts in kibibytes, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    note = f"{peak / 1e9:.2f} of {available / 1e9:.0f} GB at the peak"
    return Outcome(peak / available, 1.0, note)


def _timing(config: ConfigDict) -> Outcome:
    """Times a training step; passes unless it crashes."""
    case = ours.train_case("step", ours.noise_run(config))
    found = row(alternate([case], ROUNDS)["step"])
    return Outcome(0.0, 0.0, f"{found['images_per_second']:,.0f} images/s", found)


def timings(configs: Sequence[ConfigDict]) -> list[Check]:
    """Returns the timings of a training step of each configuration."""
    return [
        Check(
            f"a step of {config.model.name}, batch {config.train.batch_size}",
            partial(_timing, config),
        )
        for config in configs
    ]


def checks() -> list[Check]:
    """Returns the check of the compiler's sums, and the memory used until then."""
    return [
        Check("sums that jaxlib 0.10.2 gets wrong", _sums),
        Check("memory at the peak, of all", _memory),
    ]
