"""The manifest of a run: the software, the machine and the data that produced it."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from cnnjax import __version__
from cnnjax.data.dataset import Dataset
from cnnjax.errors import InputError, one_line
from cnnjax.parallel import Partitioner
from cnnjax.runtime import environment
from cnnjax.workdir import files

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
)


def describe(partitioner: Partitioner, dataset: Dataset) -> dict[str, Any]:
    """Returns the manifest: command, versions, devices, precision, data and commit."""
    return {
        **describe_machine(partitioner),
        "data": {
            "name": dataset.name,
            "version": dataset.version,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.class_names),
            "image_shape": list(dataset.image_shape),
        },
    }


def describe_machine(partitioner: Partitioner) -> dict[str, Any]:
    """Returns the manifest without the data."""
    versions = {name: _version(name) for name in PACKAGES} | {"cnnjax": __version__}
    jax_config: Any = jax.config  # type checkers do not know its options
    devices = list(partitioner.mesh.devices.flat)
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
            "platform": devices[0].platform,
            "kinds": sorted({str(device.device_kind) for device in devices}),
            "count": len(devices),
            "mode": partitioner.mode,
        },
        "precision": {
            "parameters": "float32",
            "matmul": jax_config.jax_default_matmul_precision or "default",
        },
        "flags": {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")},
        "environment": environment.record(devices[0].platform),
        "commit": commit_of(Path(__file__).parent),
    }


def check_same_environment(workdir: Path, partitioner: Partitioner) -> None:
    """Raises InputError if the environment differs in what can change a run's bits.

    Runs of older versions, which did not record it, go on; so do runs on a platform
    other than before, as that changes the bits anyway. Another number of devices, which
    a run may take by itself, is said.
    """
    if not (workdir / files.MANIFEST).exists():
        return
    stored = files.read_json(workdir / files.MANIFEST)
    platform, now = partitioner.platform, partitioner.num_devices
    try:
        if "environment" not in stored or stored["devices"]["platform"] != platform:
            return
        before = stored["devices"]["count"]
        if before != now and partitioner.num_seeds == 1:
            print(f"devices {before} -> {now}: the results will differ in their bytes")
        differences = environment.differences(
            stored["environment"],
            environment.record(platform),
            same_jax=stored["versions"]["jax"] == jax.__version__,
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{workdir / files.MANIFEST} is damaged ({type(error).__name__}:"
            f" {one_line(error)}); restore it or name another --workdir"
        ) from error
    if differences:
        raise InputError(
            f"{workdir} was trained in another environment, which differs in"
            f" {', '.join(differences)}: need the same for the same results; set it as"
            " it was, or name another --workdir"
        )


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
    """Returns the Git commit of the program in `folder`, or None if there is none.

    "-dirty" is appended if tracked Python files differ from the commit. Other files are
    ignored, because a program writes its results there.
    """

    def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "--verify", "HEAD").stdout.strip()
    except OSError:  # there is none, or a folder of PATH may not be searched
        return None
    if not head:
        return None
    changed = git("diff", "--quiet", "HEAD", "--", ":(top,glob)**/*.py").returncode
    return f"{head}-dirty" if changed else head
