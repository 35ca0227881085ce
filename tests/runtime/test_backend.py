"""What `backend.start` sets, seen from other processes, and what it silences."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnjax.errors import InputError
from cnnjax.runtime import backend

PROGRAM = """
import os
from cnnjax.runtime import backend
backend.start({arguments})
import jax
print(jax.device_count(), os.environ.get("XLA_FLAGS", ""))
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


def test_a_second_start_compiles_nothing(start, tmp_path) -> None:
    start()
    first = compiled(tmp_path)
    assert first
    again = start()
    assert compiled(tmp_path) == first
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


def test_the_cache_can_be_off_or_elsewhere_or_impossible(start, tmp_path) -> None:
    start("compile_cache=False")
    assert not compiled(tmp_path)
    elsewhere = tmp_path / "mine"
    start(JAX_COMPILATION_CACHE_DIR=str(elsewhere))
    assert compiled(elsewhere) == compiled(tmp_path) != {}
    start(XDG_CACHE_HOME=os.devnull)


def test_every_core_is_a_device_unless_jax_is_told_otherwise(start) -> None:
    cores = len(os.sched_getaffinity(0))
    for environment, count in (({}, cores), ({"JAX_NUM_CPU_DEVICES": "3"}, 3)):
        assert int(start(**environment).stdout.split()[0]) == count


def test_determinism_is_asked_of_xla_beside_its_other_flags(start) -> None:
    mine = "--xla_cpu_enable_fast_math=false"
    done = start("deterministic=True", XLA_FLAGS=mine)
    assert done.stdout.split()[1:] == [mine, *backend.DETERMINISTIC_GPU.split()]


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
