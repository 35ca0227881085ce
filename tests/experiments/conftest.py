"""Runs the scripts on a machine without data, without a network, without a GPU."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import cnnjax
from cnnjax.runtime import backend

SCRIPTS = Path(__file__).resolve().parents[2] / "experiments"

# It takes a compilation; test_tensorboard.py asks for it.
WITHOUT_TENSORBOARD = {
    script: ["--config.train.tensorboard=False"]
    for script in ("cifar10.py", "mnist.py")
}

# Nothing listens there, so whatever is asked of the network is refused at once.
NO_NETWORK = "http://127.0.0.1:9"


# In this process, what takes fewer seconds to compile is not kept: each write reads the
# times of all programs that are.
FEWEST_SECONDS = ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """What the scripts find around them: a home, and no network.

    All processes of pytest-xdist share the cache.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "TF_", "TFDS_", "XLA_"))
        and "proxy" not in name.lower()
    }
    return kept | {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": str(Path(cnnjax.__file__).parents[1]),
        "http_proxy": NO_NETWORK,
        "https_proxy": NO_NETWORK,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "XDG_CACHE_HOME": str(base / "cache"),
    }


@pytest.fixture(scope="session", autouse=True)
def compiled_once(environment):
    """Keeps what scripts compile in this process: they do much the same."""
    names = (
        *("jax_compilation_cache_dir", "jax_compilation_cache_max_size"),
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    found = {name: getattr(jax.config, name) for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
        backend.cache_compiled_programs()
    name, seconds = FEWEST_SECONDS
    jax.config.update(name.lower(), float(seconds))
    compilation_cache.reset_cache()
    yield
    for name, value in found.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def scripts():
    """The folder of the scripts."""
    return SCRIPTS


@pytest.fixture(scope="session")
def start(environment):
    """Returns (script, *flags, cwd) -> the script as a process of its own."""
    with contextlib.ExitStack() as started:

        def start(script, *flags, cwd):
            process = subprocess.Popen(
                [
                    sys.executable,
                    str(SCRIPTS / script),
                    *WITHOUT_TENSORBOARD.get(script, []),
                    *flags,
                ],
                cwd=cwd,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="session")
def call(environment):
    """Returns (script, *flags) -> the script run in this process, which is quicker."""

    def call(script, *flags, cwd=None):
        path = str(SCRIPTS / script)
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as exited,
        ):
            patch.delenv("TFDS_DATA_DIR", raising=False)
            for name, value in (*environment.items(), FEWEST_SECONDS):
                patch.setenv(name, value)
            before = WITHOUT_TENSORBOARD.get(script, [])
            patch.setattr(sys, "argv", [path, *before, *flags])
            if cwd is not None:
                patch.chdir(cwd)
            runpy.run_path(path, run_name="__main__")
        code = exited.value.code
        return subprocess.CompletedProcess(flags, code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def make_npz(tmp_path_factory):
    """Returns (shape=, classes=, **arrays) -> the path of an .npz file of noise."""

    def make_npz(shape=(32, 32, 3), classes=10, **arrays):
        random = np.random.default_rng(0)
        file = tmp_path_factory.mktemp("npz") / "noise.npz"
        for part, count in (("train", 60), ("test", 30)):
            images = random.integers(0, 256, (count, *shape), np.uint8)
            labels = np.arange(count, dtype=np.uint8) % classes
            arrays = {f"x_{part}": images, f"y_{part}": labels} | arrays
        np.savez(file, **arrays)
        return file

    return make_npz


@pytest.fixture(scope="session")
def snapshot():
    """Returns folder -> the bytes of every file in it but the lock's, by path."""

    def snapshot(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        lock = (".lock", ".owner")
        return {path: path.read_bytes() for path in files if path.name not in lock}

    return snapshot


@pytest.fixture(scope="session")
def colour_run(call, make_npz, tmp_path_factory):
    """A run on ten noisy patterns, tested with ten views, that keeps an average."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 192, (10, 32, 32, 3), np.uint8)
    x_train, x_test = (
        patterns[np.arange(count) % 10]
        + random.integers(0, 64, (count, 32, 32, 3), np.uint8)
        for count in (60, 30)
    )
    workdir = tmp_path_factory.mktemp("runs") / "cifar"
    done = call(
        "cifar10.py",
        "--config.data.source=npz",
        f"--config.data.file={make_npz(x_train=x_train, x_test=x_test)}",
        "--config.data.pipeline=device",
        "--config.data.distortions=()",
        "--config.model.width=0.1",
        "--config.model.lrn=False",
        "--config.optim.learning_rate=0.01",
        "--config.optim.ema_decay=0.5",
        "--config.optim.l2=0.0",
        "--config.train.steps=40",
        "--config.train.batch_size=16",
        "--config.eval.batch_size=30",
        "--config.eval.views=10",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout
