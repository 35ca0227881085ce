"""What is said about a GPU that JAX cannot use: machines are folders that look so."""

import ctypes
import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from cnnjax.errors import InputError
from cnnjax.runtime import gpu

OPEN_580 = "NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)"
OLD_535 = "NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023"
OLDER_470 = "NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021"
ON_CPU = "; this runs on the CPU (JAX_PLATFORMS=cpu silences this)\n"


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def machine(root, *, vendor="10DE", kind="03", driver="", devices=()):
    """Makes the files by which a GPU, its driver and its device are known."""
    for slot, maker, group in (("00", "8086", "03"), ("01", vendor, kind)):
        name = f"pci:v0000{maker}d00002330sv0000{maker}sd000016C1bc{group}sc02i00\n"
        write(root / f"sys/bus/pci/devices/0000:{slot}:00.0/modalias", name)
    write(root / "dev/null")
    if driver:
        text = f"NVRM version: {driver}\nGCC version:  gcc version 12.3.0 (Debian)\n"
        write(root / "proc/driver/nvidia/version", text)
    for name in devices:
        write(root / "dev" / name)


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Returns (cuda, libcuda, platforms, **machine) -> JAX's platforms afterwards."""

    def check(cuda=13, libcuda=0, platforms="", visible="0", **has):
        machine(tmp_path, **has)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(gpu, "cuda_of_packages", lambda: cuda)
        monkeypatch.setattr(gpu, "cuda_of_driver", lambda: libcuda)
        jax.config.update("jax_platforms", platforms)
        gpu.check(tmp_path)
        return jax.config.jax_platforms

    before = jax.config.jax_platforms
    monkeypatch.setattr(logging.getLogger("jax._src.xla_bridge"), "filters", [])
    yield check
    jax.config.update("jax_platforms", before)


NEEDS = (
    "but not JAX's CUDA packages; pip install 'cnnjax[gpu]', which is jax[cuda13] and"
    " needs driver R580 or newer (jax[cuda12]: R525)"
)
NO_DEVICE = (
    "and no device /dev/nvidia0; install NVIDIA's driver, R580 or newer for JAX's"
    " packages of CUDA 13, or start the container with the GPUs (docker run --gpus all)"
)
PROBLEMS = {
    "packages": (
        {"cuda": 0, "driver": OLD_535, "devices": ["nvidia3"]},
        f"found an NVIDIA GPU with driver 535.104.05, {NEEDS}",
    ),
    "packages and driver": (
        {"cuda": 0},
        f"found an NVIDIA GPU with no driver, {NEEDS}",
    ),
    "driver": ({}, f"found an NVIDIA GPU with no driver {NO_DEVICE}"),
    "device": (
        {"driver": OPEN_580, "vendor": "1234"},
        f"found an NVIDIA GPU with driver 580.65.06 {NO_DEVICE}",
    ),
    "newer driver": (
        {"driver": OLD_535, "devices": ["nvidia3"], "libcuda": 12020},
        "found an NVIDIA GPU with driver 535.104.05, need R580 or newer for JAX's"
        " packages of CUDA 13; update the driver, or pip uninstall -y"
        " jax-cuda13-plugin jax-cuda13-pjrt && pip install 'jax[cuda12]'",
    ),
    "newer driver for CUDA 12": (
        {"driver": OLDER_470, "devices": ["nvidia3"], "cuda": 12},
        "found an NVIDIA GPU with driver 470.57.02, need R525 or newer for JAX's"
        " packages of CUDA 12; update the driver",
    ),
}


@pytest.mark.parametrize(("has", "line"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_is_missing_is_one_line(check, capsys, has, line) -> None:
    # Without CUDA's packages there is nothing to keep JAX from.
    assert check(**has) == ("cpu" if has.get("cuda", 13) else "")
    assert capsys.readouterr().err == f"warning: {line}{ON_CPU}"
    assert check(**has, platforms="cuda,cpu") == "cpu"
    assert capsys.readouterr().err == f"warning: {line}{ON_CPU}"
    with pytest.raises(InputError) as raised:
        check(**has, platforms="cuda")
    told = f"got JAX_PLATFORMS=cuda, {line}, or set JAX_PLATFORMS=cpu"
    assert str(raised.value) == told


USABLE = {"driver": OPEN_580, "devices": ["nvidia3"]}
SILENT = {
    "usable": (USABLE, ""),
    "usable and asked for": (USABLE | {"platforms": "cuda"}, "cuda"),
    "asked for by the other name": (USABLE | {"platforms": "gpu,cpu"}, "cuda,cpu"),
    "old driver with CUDA 12": (USABLE | {"driver": OLD_535, "cuda": 12}, ""),
    "old driver with a new libcuda": (
        USABLE | {"driver": OLD_535, "libcuda": 13000},
        "",
    ),
    "no GPU": ({"vendor": "1002"}, "cpu"),
    "no GPU, no packages": ({"vendor": "1002", "cuda": 0}, ""),
    "NVIDIA's network card": ({"kind": "02", "cuda": 0}, ""),
    "a GPU of anyone, under Windows": ({"vendor": "1002", "devices": ["dxg"]}, ""),
    "CPU chosen": ({"platforms": "cpu"}, "cpu"),
    "hidden": (USABLE | {"visible": ""}, "cpu"),
    "hidden by -1": (USABLE | {"visible": "-1"}, "cpu"),
}


@pytest.mark.parametrize(("has", "platforms"), SILENT.values(), ids=SILENT)
def test_it_is_silent_where_nothing_is_missing(check, capsys, has, platforms) -> None:
    assert check(**has) == platforms
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("has", "line"),
    [
        ({"vendor": "1002"}, "found no NVIDIA GPU in this machine; unset it"),
        (
            USABLE | {"visible": "-1"},
            "but CUDA_VISIBLE_DEVICES=-1 hides every GPU; unset one",
        ),
    ],
)
def test_a_gpu_that_is_asked_for_must_be_there(check, has, line) -> None:
    with pytest.raises(InputError) as raised:
        check(**has, platforms="cuda")
    told = f"got JAX_PLATFORMS=cuda, {line}, or set JAX_PLATFORMS=cpu"
    assert str(raised.value) == told


def test_the_version_of_cuda(monkeypatch, tmp_path) -> None:
    """Of the packages, by their folder, and of NVIDIA's library."""
    monkeypatch.delitem(sys.modules, "jax_plugins", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert gpu.cuda_of_packages() == 0
    write(tmp_path / "jax_plugins/xla_cuda13/__init__.py")
    importlib.invalidate_caches()
    assert gpu.cuda_of_packages() == 13

    def version_of_driver(pointer):
        pointer._obj.value = 12020

    library = SimpleNamespace(cuDriverGetVersion=version_of_driver)
    monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": library}.get)
    assert gpu.cuda_of_driver() == 12020
    monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": object()}.get)
    assert gpu.cuda_of_driver() == 0


LOG = logging.getLogger("jax._src.xla_bridge")
UNLOADABLE = (
    "JAX's CUDA packages do not load (Unable to load cuPTI. Is it installed?); unset"
    " LD_LIBRARY_PATH, install 'cnnjax[gpu]' into a new environment, and see whether"
    " nvidia-smi works"
)


def log_as_jax_does() -> None:
    try:
        raise RuntimeError("Unable to load cuPTI.\nIs it installed?")
    except RuntimeError:
        text = "Jax plugin configuration error: Exception when calling %s.initialize()"
        LOG.exception(text, "jax_plugins.xla_cuda13")
    LOG.warning("An NVIDIA GPU may be present on this machine, but a CUDA-enabled")


def test_jax_says_nothing_beside_our_line(check, monkeypatch, caplog, capsys) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    check(**USABLE)
    log_as_jax_does()
    LOG.warning("another line")
    assert caplog.messages == ["another line"]
    line = f"warning: {UNLOADABLE}; this runs on the CPU\n"
    assert capsys.readouterr().err == line
    LOG.filters.clear()
    check(**USABLE, platforms="cuda")
    with pytest.raises(InputError) as raised:
        log_as_jax_does()
    assert str(raised.value) == f"{UNLOADABLE}, or set JAX_PLATFORMS=cpu"
    LOG.filters.clear()
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    check(**USABLE)
    assert not LOG.filters


# Found and started by JAX itself, or so it tries.
UNLOADED = """
def initialize():
    raise RuntimeError("Unable to load cuPTI. Is it installed?")
"""
UNSTARTED = """
from jax._src import hardware_utils, xla_bridge

def start():
    raise RuntimeError("INTERNAL: no supported devices found for platform CUDA")

def initialize():
    hardware_utils.has_visible_nvidia_gpu = lambda: True
    xla_bridge.register_backend_factory("cuda", start, fail_quietly=False)
"""
PROGRAM = """
import sys
from pathlib import Path
from cnnjax.runtime import backend, exits, gpu

def run(argv):
    gpu.check.__defaults__ = (Path(argv[1]),)
    backend.start()
    import jax
    print(jax.devices()[0].platform)

exits.exit_with(run, "")
"""


def test_what_shows_as_cuda_starts(tmp_path) -> None:
    machine(tmp_path, **USABLE)
    write(tmp_path / "jax_plugins/xla_cuda12/__init__.py", UNLOADED)
    write(tmp_path / "jax_plugins/xla_cuda13/__init__.py", UNSTARTED)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_", "CUDA_", "TF_"))
    }
    here = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(gpu.__file__).parents[2]}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=kept | here | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"warning: {UNLOADABLE}; this runs on the CPU",
        "error: the NVIDIA GPU does not start (INTERNAL: no supported devices found for"
        " platform CUDA); nvidia-smi shows its state and what holds its memory: free"
        " it, or set JAX_PLATFORMS=cpu",
    ]
