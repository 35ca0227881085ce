"""What made a run: versions, machine, devices, precision, flags, data and commit."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tensorflow-cpu",
    "tensorflow",
    "tensorflow-datasets",
    "cnnjax",
)


def describe(mesh: Mesh, *, mode: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what made a run: versions, devices, precision, flags, data and commit."""
    versions = {name: _version(name) for name in PACKAGES}
    jax_config: Any = jax.config  # its options are not declared to type checkers
    devices = [str(device.device_kind) for device in mesh.devices.flat]
    return {
        "command": ["python", *sys.argv],
        "versions": {"python": platform.python_version()}
        | {name: version for name, version in versions.items() if version},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "devices": {
            "platform": mesh.devices.flat[0].platform,
            "kinds": sorted(set(devices)),
            "count": mesh.size,
            "mode": mode,
        },
        "precision": {
            "parameters": "float32",
            "matmul": jax_config.jax_default_matmul_precision or "default",
        },
        "flags": {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")},
        "data": dict(data),
        "commit": commit_of(Path(__file__).parent),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit_of(folder: Path) -> str | None:
    """Returns the commit of the program in `folder`, None where there is no such.

    With "-dirty" behind it where Python files differ from it; results, which a program
    writes there itself, do not count.
    """

    def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "--verify", "HEAD").stdout.strip()
    except FileNotFoundError:
        return None
    if not head:
        return None
    changed = git("diff", "--quiet", "HEAD", "--", ":(top,glob)**/*.py").returncode
    return f"{head}-dirty" if changed else head
