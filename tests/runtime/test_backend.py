"""What `backend.start` sets, seen from other processes, and what it silences."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from cnnjax import launch
from cnnjax.config import default_config
from cnnjax.errors import InputError, RunError
from cnnjax.runtime import backend, exits

PROGRAM = """
import os
from cnnjax.runtime import backend
backend.start({arguments})
import jax
from jax._src import compiler
print(jax.device_count(), os.environ.get("XLA_FLAGS", ""))
print(os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"))
options = compiler.get_compile_options(1, 1)
debug_options = options.executable_build_options.debug_options
print(debug_options.xla_gpu_per_fusion_autotune_cache_dir)
jax.block_until_ready(jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3)))
"""


@pytest.fixture
def start(tmp_path):
    """Returns (arguments, **environment) -> a process that started so, and ended."""

    def start(arguments="", **environment):
        set_here = ("JAX", "XLA", "TF_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(set_here)}
        kept |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path)} | environment
        return subprocess.run(
            [sys.executable, "-c", PROGRAM.format(arguments=arguments)],
            env=kept,
            cwd=Path(backend.__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )

    return start


def compiled(folder):
    files = (path for path in folder.rglob("*") if path.name.endswith("-cache"))
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("bound", [{}, {"JAX_COMPILATION_CACHE_MAX_SIZE": "-1"}])
def test_a_second_start_compiles_nothing(start, tmp_path, bound) -> None:
    """Without a bound, JAX keeps no times of last use."""
    start(**bound)
    first = {path: path.stat().st_mtime_ns for path in compiled(tmp_path)}
    assert first
    again = start(**bound)
    assert {path: path.stat().st_mtime_ns for path in compiled(tmp_path)} == first
    # XLA would report every program from the cache as made for another machine.
    assert again.stderr == ""


def test_a_program_that_was_half_written_is_dropped(start, tmp_path) -> None:
    """As a kill leaves it; JAX would fail at every write of its cache from then on."""
    start()
    program = next(iter(compiled(tmp_path)))
    time_of_use = program.with_name(program.name.removesuffix("-cache") + "-atime")
    time_of_use.unlink()
    again = start(XLA_FLAGS="--xla_cpu_enable_fast_math=false")  # other programs
    assert again.stderr == ""
    assert program not in compiled(tmp_path)


def test_only_the_programs_that_were_used_last_are_kept(start, tmp_path) -> None:
    """JAX looks at all of them at every write, which then takes longer than compiling.

    A folder that the user names may be another program's: nothing in it is deleted.
    """
    start()
    (cache,) = {program.parent for program in compiled(tmp_path)}
    mine = set(cache.iterdir())
    old = [cache / f"old{i}-{kind}" for i in range(600) for kind in ("cache", "atime")]
    for file in old:
        file.write_bytes(b"12345678")
        os.utime(file, (1e9, 1e9))
    start(JAX_COMPILATION_CACHE_DIR=str(cache))
    assert set(old) <= set(cache.iterdir())
    start()
    left = set(cache.iterdir())
    assert mine <= left
    assert len(left & set(old)) == 2 * backend.COMPILE_CACHE_PROGRAMS - len(
        [file for file in mine if file.name.endswith(("-cache", "-atime"))]
    )


def test_the_cache_can_be_off_or_elsewhere_or_impossible(start, tmp_path) -> None:
    """On a GPU, XLA keeps what it has measured in a folder below."""
    without = start("compile_cache=False")
    assert without.stdout.endswith("false\n\n")
    assert not compiled(tmp_path)
    elsewhere = tmp_path / "mine"
    there = start(JAX_COMPILATION_CACHE_DIR=str(elsewhere))
    assert compiled(elsewhere) == compiled(tmp_path) != {}
    measured = elsewhere / "xla_gpu_per_fusion_autotune_cache_dir"
    assert there.stdout.splitlines()[-1] == str(measured)
    start(XDG_CACHE_HOME=os.devnull)


def test_every_core_is_a_device_unless_jax_is_told_otherwise(start) -> None:
    cores = len(os.sched_getaffinity(0))
    # And a GPU's memory is taken as it is needed, unless the user says how much.
    told = {"JAX_NUM_CPU_DEVICES": "3", "XLA_CLIENT_MEM_FRACTION": "0.5"}
    for environment, count, at_once in (({}, cores, "false"), (told, 3, "None")):
        found = start(**environment).stdout.split()
        assert (int(found[0]), found[1]) == (count, at_once)


def test_determinism_is_asked_of_xla_beside_its_other_flags(start, tmp_path) -> None:
    mine = "--xla_cpu_enable_fast_math=false"
    (tmp_path / "flags.txt").write_text(f"{mine}\n")
    for given in (mine, str(tmp_path / "flags.txt")):  # of a file, too
        done = start("deterministic=True", XLA_FLAGS=given)
        assert done.stdout.splitlines()[0].split()[1:] == [
            mine,
            *backend.DETERMINISTIC_GPU.split(),
        ]


def test_it_is_quiet_unless_asked(monkeypatch):
    absl = logging.getLogger("absl")
    monkeypatch.setattr(absl, "level", logging.INFO)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    backend.quieten()
    assert absl.level == logging.INFO
    assert sys.unraisablehook is sys.__unraisablehook__
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    backend.quieten()
    assert absl.level == logging.CRITICAL
    hook = sys.unraisablehook
    assert hook is not sys.__unraisablehook__
    backend.quieten()
    assert sys.unraisablehook is hook, "twice is as once"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_only_what_orbax_gives_up_is_not_reported(monkeypatch):
    """A coroutine of a module of that name, and a callback of a closed loop."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    backend.quieten()
    for error, file in (
        (RuntimeError("Event loop is closed"), "mine.py"),
        (ValueError("mine"), "orbax/checkpoint.py"),
        (ValueError("mine"), "mine.py"),
    ):
        found = {}
        exec(compile("async def given_up(): pass", file, "exec"), found)
        coroutine = found["given_up"]()
        coroutine.close()
        sys.unraisablehook(SimpleNamespace(object=coroutine, exc_value=error))
    (only,) = reported
    assert only.object.cr_code.co_filename == "mine.py"
    assert str(only.exc_value) == "mine"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--xla_nonsense=1", "Unknown flag in XLA_FLAGS: --xla_nonsense=1"),
        ("--xla_cpu_enable_fast_math=maybe", "interpret value maybe for flag"),
        ("nowhere.txt", 'Could not open file "nowhere.txt"'),
    ],
)
def test_flags_that_would_end_the_process(monkeypatch, given, reason) -> None:
    monkeypatch.setenv("XLA_FLAGS", given)
    with pytest.raises(InputError) as raised:
        backend.start()
    assert f"got XLA_FLAGS={given}, need flags that" in str(raised.value)
    assert reason in str(raised.value)


def test_what_the_user_did_not_set_is_not_blamed(monkeypatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda: 1 / 0)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "2")
    explained = str(backend.error_of_environment(ValueError("it fails")))
    assert "XLA_CLIENT_MEM_FRACTION=2" in explained
    assert "PREALLOCATE" not in explained


ADVICE = "lower train.batch_size, eval.batch_size or num_seeds"
OF_A_GPU = (
    f", and nvidia-smi shows who holds memory); {ADVICE}; data.pipeline=tfdata keeps"
    " the data set out of the GPU's memory; what is saved is kept"
)


def allocate(*_: object) -> None:
    """Asks for 64 TiB, which XLA refuses at once."""
    jax.numpy.zeros(1 << 46, "uint8")


def test_no_memory_is_one_line(monkeypatch, capsys, tmp_path) -> None:
    line = (
        "out of memory on the CPU (65,536.00 GiB more could not be allocated);"
        f" {ADVICE}; what is saved is kept"
    )
    monkeypatch.setattr(launch, "_train", allocate)
    with pytest.raises(RunError) as raised:
        launch.train(default_config("MLP"), tmp_path)
    assert str(raised.value) == line
    monkeypatch.setattr(sys, "argv", ["predict.py"])
    with pytest.raises(SystemExit) as exited:
        exits.exit_with(allocate, "")
    assert (exited.value.code, capsys.readouterr().err) == (1, f"error: {line}\n")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8.5GiB.\nMore.",
            "8.50 GiB more could not be allocated",
        ),
        (
            "RESOURCE_EXHAUSTED: Out of memory trying to allocate 33762398024 bytes.",
            "31.44 GiB more could not be allocated",
        ),
        (
            "RESOURCE_EXHAUSTED: Failed to allocate request for 512.0MiB (536870912B)",
            "0.50 GiB more could not be allocated",
        ),
        *[
            (text, text)
            for text in (
                "INTERNAL: failed to create cublas handle: the library was not started",
                "INTERNAL: Could not create cudnn handle: CUDNN_STATUS_NOT_INITIALIZED",
                "FAILED_PRECONDITION: DNN library initialization failed. Look above",
            )
        ],
    ],
)
@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_no_memory_of_a_gpu(monkeypatch, kind, text, what) -> None:
    device = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    with pytest.raises(RunError) as raised, backend.memory_errors():
        raise kind(text)
    assert str(raised.value) == f"out of memory on NVIDIA H200 ({what}{OF_A_GPU}"


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Shared memory size limit exceeded: requested 278536"
        ),
        jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS"),
        RunError(
            "process 1 failed: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."
        ),
        InputError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
        KeyError("out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_other_errors_stay_as_they_are(error) -> None:
    with pytest.raises(type(error)) as raised, backend.memory_errors():
        raise error
    assert raised.value is error


ARENAS = """
import ctypes, os, sys
from cnnjax.runtime import backend
backend.start(compile_cache=False)
import jax
jax.block_until_ready(jax.jit(lambda x: x @ x)(jax.numpy.ones((500, 500))))
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
stream = library.fopen(sys.argv[1].encode(), b"w")
library.malloc_info(0, ctypes.c_void_p(stream))
library.fclose(ctypes.c_void_p(stream))
print(backend.num_cores())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is not glibc")
def test_each_core_s_thread_has_an_arena_and_others_share_them(tmp_path) -> None:
    arguments = [sys.executable, "-c", ARENAS, str(tmp_path / "info.xml")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    arenas = (tmp_path / "info.xml").read_text().count("<heap nr=")
    assert 1 < arenas <= int(done.stdout) + 1
