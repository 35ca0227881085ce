"""NVIDIA GPUs: what this machine has of them, and in one line what JAX lacks."""

import ctypes
import importlib.util
import logging
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from cnnjax.errors import InputError, one_line

# Each major version of CUDA and the oldest driver for it, from table 1 of
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {12: 525, 13: 580}
DRIVER = "proc/driver/nvidia/version"
CPU = "JAX_PLATFORMS=cpu"


def check(root: Path = Path("/")) -> None:
    """Keeps JAX from a GPU that it cannot use, and says in one line what is missing.

    By itself JAX prints a traceback where its CUDA packages find no GPU, as those of a
    container's image on a machine without one, and fails where the driver is too old or
    CUDA_VISIBLE_DEVICES hides every GPU. Here JAX then has the CPU alone: in silence
    where there is no GPU or the user hid it, and otherwise with a warning.

    Call it before JAX starts. It reads a few files below `root` and starts nothing.

    Raises:
        InputError: the user asked, with JAX_PLATFORMS, for a GPU and not for the CPU.
    """
    import jax

    jax_config: Any = jax.config  # type checkers do not know its options
    asked = jax_config.jax_platforms or ""
    platforms = [name.strip() for name in asked.split(",") if name.strip()]
    on_gpu = not {"cuda", "gpu"}.isdisjoint(platforms)
    # Windows gives Linux its GPUs by this device, whoever has made them.
    if (platforms and not on_gpu) or (root / "dev/dxg").exists():
        return
    visible, warning = os.environ.get("CUDA_VISIBLE_DEVICES", "all"), ""
    if visible.split(",")[0].strip() in ("", "-1"):
        problem = f"but CUDA_VISIBLE_DEVICES={visible} hides every GPU; unset one"
    elif not is_here(root):
        problem = "found no NVIDIA GPU in this machine; unset it"
    else:
        problem = warning = missing(root)
    if problem and on_gpu and "cpu" not in platforms:
        raise InputError(f"got JAX_PLATFORMS={asked}, {problem}, or set {CPU}")
    if warning:
        line = f"warning: {warning}; this runs on the CPU ({CPU} silences this)"
        print(line, file=sys.stderr)
    if problem and (on_gpu or cuda_of_packages()):
        jax.config.update("jax_platforms", "cpu")
    elif "gpu" in platforms:
        # JAX would try the GPUs of other makers as well, and fail.
        jax.config.update("jax_platforms", asked.replace("gpu", "cuda"))
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":
        log = logging.getLogger("jax._src.xla_bridge")
        log.addFilter(partial(is_logged, is_error=on_gpu))


def is_here(root: Path) -> bool:
    """Returns whether the machine has an NVIDIA GPU, with or without a driver."""
    if has_device(root) or (root / DRIVER).exists():
        return True
    # Of NVIDIA, and of the class of displays and 3D controllers.
    cards = root.glob("sys/bus/pci/devices/*/modalias")
    return any(re.match("pci:v000010DE.*bc03", _text(card)) for card in cards)


def has_device(root: Path) -> bool:
    """Returns whether this process, perhaps in a container, can open a GPU."""
    return any((root / "dev").glob("nvidia[0-9]*"))


def missing(root: Path) -> str:
    """Returns what JAX lacks for the GPU of this machine and what to do, or ""."""
    found = re.search(r"\b\d{3,4}\.\d[.\d]*", _text(root / DRIVER))
    driver, cuda = found[0] if found else "", cuda_of_packages()
    gpu = f"found an NVIDIA GPU with {f'driver {driver}' if driver else 'no driver'}"
    if not cuda:
        return (
            f"{gpu}, but not JAX's CUDA packages; pip install 'cnnjax[gpu]', which is"
            f" jax[cuda13] and needs driver R{OLDEST_DRIVER[13]} or newer (jax[cuda12]:"
            f" R{OLDEST_DRIVER[12]})"
        )
    oldest = OLDEST_DRIVER.get(cuda, 0)
    if not has_device(root):
        return (
            f"{gpu} and no device /dev/nvidia0; install NVIDIA's driver, R{oldest} or"
            f" newer for JAX's packages of CUDA {cuda}, or start the container with the"
            " GPUs (docker run --gpus all)"
        )
    number = int(driver.partition(".")[0] or oldest)
    # NVIDIA's containers bring a newer libcuda, with which an older driver does.
    if number >= oldest or cuda_of_driver() >= 1000 * cuda:
        return ""
    other = ""
    if number >= OLDEST_DRIVER[12]:
        names = f"jax-cuda{cuda}-plugin jax-cuda{cuda}-pjrt"
        other = f", or pip uninstall -y {names} && pip install 'jax[cuda12]'"
    need = f"need R{oldest} or newer for JAX's packages of CUDA {cuda}"
    return f"{gpu}, {need}; update the driver{other}"


def _text(path: Path) -> str:
    """Returns the text of a file, or "" if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def cuda_of_driver() -> int:
    """Returns the CUDA version of the library libcuda, 13000 for 13.0, or 0."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def cuda_of_packages() -> int:
    """Returns the major version of CUDA that JAX's packages are for, or 0."""
    spec = importlib.util.find_spec("jax_plugins")
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [p.name[8:] for f in folders for p in Path(f).glob("xla_cuda[0-9]*")]
    return min((int(number) for number in found if number.isdecimal()), default=0)


def not_started(cause: Exception) -> str:
    """Returns one line for JAX's error that CUDA does not start, or "" for others."""
    found = re.search(r"initialize backend 'cuda': (.+)", one_line(cause))
    if not found:
        return ""
    reason = re.split(r" \((?:you may need|set JAX_PLATFORMS)", found[1])[0]
    return (
        f"the NVIDIA GPU does not start ({reason[:200]}); nvidia-smi shows its state"
        f" and what holds its memory: free it, or set {CPU}"
    )


def is_logged(record: logging.LogRecord, *, is_error: bool) -> bool:
    """Returns whether a line of JAX is kept; says others in one line of ours.

    JAX logs with a traceback that its CUDA packages do not load, goes on with the CPU,
    and logs that they may not be installed.

    Raises:
        InputError: in place of going on, if `is_error`.
    """
    text = record.getMessage()
    if not text.startswith("Jax plugin configuration error") or "xla_cuda" not in text:
        return not text.startswith("An NVIDIA GPU may be present")
    cause = record.exc_info[1] if record.exc_info else None
    line = (
        f"JAX's CUDA packages do not load ({one_line(cause or Exception(text), 200)});"
        " unset LD_LIBRARY_PATH, install 'cnnjax[gpu]' into a new environment, and see"
        " whether nvidia-smi works"
    )
    if is_error:
        raise InputError(f"{line}, or set {CPU}")
    print(f"warning: {line}; this runs on the CPU", file=sys.stderr)
    return False
