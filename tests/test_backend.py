"""What `backend.start` sets, seen from processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnjax.runtime import backend

PROGRAM = """
import os
from cnnjax import backend
backend.start({arguments})
import jax
print(jax.device_count(), os.environ.get("XLA_FLAGS", ""))
jax.block_until_ready(jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3)))
"""


@pytest.fixture
def start(tmp_path):
    """Returns (arguments, **environment) -> what a process that starts so prints."""

    def start(arguments="", **environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA"))}
        kept |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path)} | environment
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(arguments=arguments)],
            env=kept,
            cwd=Path(backend.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split(maxsplit=1)

    return start


def compiled(folder):
    files = (path for path in folder.rglob("*") if path.name.endswith("-cache"))
    return {path: path.read_bytes() for path in files}


def test_a_second_start_compiles_nothing(start, tmp_path) -> None:
    start()
    first = compiled(tmp_path)
    assert first
    start()
    assert compiled(tmp_path) == first


def test_the_cache_can_be_off_or_elsewhere_or_impossible(start, tmp_path) -> None:
    start("compile_cache=False")
    assert not compiled(tmp_path)
    elsewhere = tmp_path / "mine"
    start(JAX_COMPILATION_CACHE_DIR=str(elsewhere))
    assert compiled(elsewhere) == compiled(tmp_path) != {}
    start(XDG_CACHE_HOME=os.devnull)


def test_every_core_is_a_device_unless_jax_is_told_otherwise(start) -> None:
    cores = len(os.sched_getaffinity(0))
    assert int(start()[0]) == cores
    assert int(start(JAX_NUM_CPU_DEVICES="3")[0]) == 3


def test_determinism_is_asked_of_xla_beside_its_other_flags(start) -> None:
    mine = "--xla_cpu_enable_fast_math=false"
    _, flags = start("deterministic=True", XLA_FLAGS=mine)
    assert flags.split() == [mine, *backend.DETERMINISTIC_GPU.split()]
