"""Settings of JAX's backend and of the logs, made before the backend starts."""

import contextlib
import ctypes
import hashlib
import inspect
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from cnnjax.errors import InputError, RunError, one_line
from cnnjax.runtime import environment, gpu

# <malloc.h>: M_MMAP_MAX (no block gets a mapping of its own), and M_TRIM_THRESHOLD and
# M_TOP_PAD in bytes.
MALLOC_OPTIONS = {-4: 0, -1: 1 << 30, -2: 64 << 20}
M_ARENA_MAX = -8

# Keeps the order of every sum, and the choice of kernels, the same from run to run.
DETERMINISTIC_GPU = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
# A run's 150 to 200 programs take 1 to 10 MB. When JAX writes one, it reads the time
# of last use of all: with 3,000, that takes longer than compiling it.
COMPILE_CACHE_BYTES, COMPILE_CACHE_PROGRAMS = 1 << 30, 500

# The variables by which a user says how much of a GPU's memory JAX takes, and when.
GPU_MEMORY = (
    *("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_ALLOCATOR"),
    *("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"),
)
# What XLA says where it finds no memory. On a full GPU NVIDIA's libraries may be the
# first not to start (jax#7118). RESOURCE_EXHAUSTED alone is not enough: it also stands
# for too much of the memory that a kernel's threads share.
OUT_OF_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED: .*(out of memory|allocat)|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CU[A-Z]+_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)|DNN library initialization failed"
    r"|create (cublas|cudnn) handle",
    re.IGNORECASE,
)


def start(*, compile_cache: bool = True, deterministic: bool = False) -> None:
    """Sets JAX up; call it before anything asks for a device.

    Each core of a CPU becomes a device: XLA runs parts of a step on one thread, and a
    batch split over the cores keeps them all busy. This has no effect if a GPU is the
    default backend. A GPU's memory is taken as it is needed, because others may use the
    GPU too, such as a notebook; JAX by itself takes three quarters of it at once. JAX's
    own environment variables take precedence, but for those of `environment.PINNED`,
    which have no effect; a warning names them.

    Args:
        compile_cache: keep compiled programs in the user's cache folder, so that a
            second start compiles nothing.
        deterministic: make a GPU return the same bytes each time, as a CPU always does.

    Raises:
        InputError: XLA does not take what XLA_FLAGS says, or JAX cannot use the GPU
            that JAX_PLATFORMS asks for; where it does not, a warning says why.
    """
    quieten()
    _check_xla_flags()
    import jax

    for variable in environment.pin():
        print(
            f"warning: {variable} has no effect here: a run depends on nothing but its"
            " configuration",
            file=sys.stderr,
        )
    gpu.check()
    if os.environ.keys().isdisjoint(GPU_MEMORY):
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    _keep_freed_memory()
    asked_of_xla = "--xla_force_host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    )
    if "JAX_NUM_CPU_DEVICES" not in os.environ and not asked_of_xla:
        jax.config.update("jax_num_cpu_devices", num_cores())
    if compile_cache:
        cache_compiled_programs()
    if deterministic:
        # XLA reads this when the backend starts, which has not happened yet.
        flags = [*environment.xla_flags(), DETERMINISTIC_GPU]
        os.environ["XLA_FLAGS"] = " ".join(flags)


def _check_xla_flags() -> None:
    """Tries XLA_FLAGS in another process, as XLA ends one that has a wrong flag."""
    if not os.environ.get("XLA_FLAGS", "").strip():
        return
    program = "from jaxlib import xla_client as x; x.CompileOptions()"
    tried = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        first, *_ = tried.stderr.splitlines() or ["XLA says nothing"]
        raise InputError(
            f"got XLA_FLAGS={os.environ['XLA_FLAGS']}, need flags that this version of"
            f" XLA has ({first.rpartition('] ')[2]}); correct or unset it"
        )


def error_of_environment(cause: Exception) -> InputError | None:
    """Returns one line in place of an exception that the environment may have caused.

    That is so where JAX cannot start, and where a variable chooses another algorithm
    than JAX's default, which need not exist on this machine. Otherwise returns None.
    """
    no_gpu = gpu.not_started(cause)
    if no_gpu:
        return InputError(no_gpu)
    try:
        environment.pin()
        import jax

        jax.devices()
    except Exception:  # JAX raises what its parts raise, even AssertionError.
        read = ("JAX_", "FLAX_", "XLA_", "CUDA_VISIBLE_DEVICES")
        given = [
            f"{k}={v}"
            for k, v in sorted(os.environ.items())
            if k.startswith(read) and k != "XLA_PYTHON_CLIENT_PREALLOCATE"
        ]
        return InputError(
            f"JAX cannot start with {' '.join(given) or 'this environment'}"
            f" ({one_line(cause, 200)}); correct or unset what is wrong of it"
        )
    chosen = [
        f"{option.upper()}={os.environ[option.upper()]}"
        for option in sorted(environment.names(environment.RECORDED))
        if option.upper() in os.environ
    ]
    if chosen:
        return InputError(
            f"this fails with {' '.join(chosen)} ({one_line(cause, 200)}); unset what"
            " is not meant"
        )
    return None


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raises RunError, in one line, in place of JAX's error that memory is exhausted.

    That may be a GPU's or the CPU's. All other errors are left as they are.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises either
        text = one_line(error)
        if isinstance(error, InputError | RunError) or not OUT_OF_MEMORY.search(text):
            raise
        import jax

        device, what = jax.local_devices()[0], text[:200]
        size = re.search(
            r"allocat\w+ (?:request for )?([\d.]+) ?([KMGT]?)i?B", text, re.I
        )
        if size:
            gib = float(size[1]) * 1024 ** (" KMGT".index(size[2] or " ") - 3)
            what = f"{max(gib, 0.01):,.2f} GiB more could not be allocated"
        where, other = "the CPU", ""
        if device.platform != "cpu":
            where = device.device_kind
            what += ", and nvidia-smi shows who holds memory"
            other = "; data.pipeline=tfdata keeps the data set out of the GPU's memory"
        raise RunError(
            f"out of memory on {where} ({what}); lower train.batch_size,"
            f" eval.batch_size or num_seeds{other}; what is saved is kept"
        ) from error


def quieten() -> None:
    """Silences the logs of XLA, Orbax and asyncio, whose errors are raised; idempotent.

    Call it before JAX is imported, which reads the setting for XLA, whose log reports
    each cached program as made for another machine (jax#38445). Orbax logs several
    lines on every save, a warning on every restore and a traceback on every error,
    which it raises as well; asyncio adds those of coroutines that were abandoned.
    `TF_CPP_MIN_LOG_LEVEL=0` keeps all logs.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


def cache_compiled_programs() -> None:
    """Turns on JAX's persistent cache, whose key covers versions and flags.

    It keeps every program, because start-up compiles many small ones. The folder is the
    user's cache of this package, in which those that were not used for longest are
    deleted; or the one that JAX_COMPILATION_CACHE_DIR names, which may be shared with
    other programs, and in which nothing is. A folder that cannot be written is no
    error: a warning names it.

    On a GPU, JAX has XLA keep in a folder below this one which kernel was the fastest
    for each operation. That folder is neither counted in the bound nor deleted, and its
    name is part of a program's key: programs that are copied elsewhere are not found.
    """
    import jax

    values: dict[str, Any] = {
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    is_own = "JAX_COMPILATION_CACHE_DIR" not in os.environ
    if is_own:
        values |= {
            "jax_compilation_cache_dir": str(user_cache() / f"compiled-{cpu_kind()}"),
            "jax_compilation_cache_max_size": COMPILE_CACHE_BYTES,
        }
    for name, value in values.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    jax_config: Any = jax.config  # type checkers do not know its options
    cache = jax_config.jax_compilation_cache_dir
    if not cache or "://" in cache:  # none is wanted, or it is in a cloud
        return
    try:
        Path(cache).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        jax.config.update("jax_compilation_cache_dir", None)
        print(
            f"warning: compiled programs are not kept, as {cache} cannot be written"
            f" ({error.strerror})",
            file=sys.stderr,
        )
        return
    if is_own and jax_config.jax_compilation_cache_max_size > 0:
        _prune(Path(cache))


def _prune(cache: Path) -> None:
    """Deletes all compiled programs but `COMPILE_CACHE_PROGRAMS`, the last ones used.

    Those too that lack the file with the time of their last use: JAX writes it second,
    and where a kill came in between, every later write to the cache would fail.
    """
    with (
        contextlib.suppress(OSError, filelock.Timeout),
        filelock.FileLock(cache / ".lockfile", timeout=1),  # which JAX locks, too
    ):
        times = sorted(cache.glob("*-atime"), key=lambda file: file.stat().st_mtime_ns)
        latest = times[-COMPILE_CACHE_PROGRAMS:]
        kept = {file.name.rpartition("-")[0] for file in latest}
        for file in (*cache.glob("*-cache"), *times):
            if file.name.rpartition("-")[0] not in kept:
                file.unlink()


def home() -> Path:
    """Returns the user's home folder.

    A user without one, such as a number without an account in a container, gets a path
    at which nothing can exist: what is looked for there is not found, and what would be
    written there raises OSError.
    """
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull, "no-home-folder")


def user_cache() -> Path:
    """Returns this package's folder in the user's cache, as XDG or macOS defines it."""
    if sys.platform == "darwin":
        return home() / "Library" / "Caches" / "cnnjax"
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # XDG has relative paths ignored.
    return (base if base.is_absolute() else home() / ".cache") / "cnnjax"


def cpu_kind() -> str:
    """Returns a digest of the CPU's features, which the cache's key does not cover.

    Without it, machines that share a home folder could get programs with instructions
    that they do not have.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    abilities = next((line for line in lines if line.startswith("flags")), "")
    kind = f"{platform.machine()} {platform.processor()} {abilities}"
    return hashlib.sha256(kind.encode()).hexdigest()[:12]


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_freed_memory() -> None:
    """Makes glibc keep the memory that a step frees for the next step.

    XLA allocates the results of every step anew. glibc returns large blocks to the
    kernel, which maps and zeroes their pages again: 40,000 page faults per step of the
    CIFAR network, which took 1.6 to 2.0 times as long (two cores, batch 128). Other C
    libraries are left as they are.

    With one arena for all, XLA's threads, one a core, waited for each other 200 to 450
    times a step, 1.1 to 1.25 times as long; more than these return memory again.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in (MALLOC_OPTIONS | {M_ARENA_MAX: num_cores() + 1}).items():
            library.mallopt(option, value)


class _Hook:
    """Reports exceptions that cannot be raised, except those after an error of Orbax.

    When one array fails, Orbax closes its event loop and raises. At any later time
    TensorStore calls the closed loop about the other arrays, and Python complains about
    the coroutines that still waited for them.
    """

    def __init__(self, report: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._report = report

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        source = unraisable.object
        given_up = inspect.iscoroutine(source) and "orbax" in source.cr_code.co_filename
        late = str(unraisable.exc_value) == "Event loop is closed"
        if not given_up and not late:
            self._report(unraisable)
