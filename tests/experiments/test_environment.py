"""Whatever surrounds a run, its results are the same or one line says why not."""

import json
import re
import signal
import subprocess
import sys

import flax
import jax
import pytest

from cnnjax import launch
from cnnjax.config import default_config
from cnnjax.network import load_network

MLP = (
    "--config=configs/mlp.py",
    "--config.data.source=embedded",
    "--config.data.pipeline=device",
    "--config.train.batch_size=16",
    "--config.train.log_every=1",
)


def digest(workdir, step):
    meta = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    return json.loads(meta.read_text())["digest"]


@pytest.fixture(scope="module")
def plain(call, tmp_path_factory):
    """A run of two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "plain"
    done = call("mnist.py", *MLP, "--config.train.steps=2", f"--workdir={workdir}")
    assert (done.returncode, done.stderr) == (0, "")
    return workdir


@pytest.fixture
def settings():
    """A function that changes the options of a program that uses the library."""
    options = {
        "jax_enable_x64": True,
        "jax_default_prng_impl": "rbg",
        "jax_threefry_partitionable": False,
        "jax_random_seed_offset": 7,
        "jax_numpy_dtype_promotion": "strict",
        "flax_fix_rng_separator": True,
    }
    configs = {
        name: flax.config if name.startswith("flax") else jax.config for name in options
    }
    before = {name: getattr(configs[name], name) for name in options}

    def change():
        for name, value in options.items():
            configs[name].update(name, value)

    yield change
    for name, value in before.items():
        configs[name].update(name, value)


@pytest.mark.parametrize(
    "pipeline", [pytest.param("device", marks=pytest.mark.slow), "tfdata"]
)
def test_settings_of_a_notebook_change_no_run(settings, tmp_path, pipeline):
    """With draws for every purpose, which tf.data makes in another thread."""
    config = default_config("MLP")
    config.data.source, config.data.pipeline = "embedded", pipeline
    config.data.distortions = ("shift", "rotate")
    config.train.steps, config.train.batch_size = 2, 16
    config.train.tensorboard = False
    launch.train(config, tmp_path / "plain", stand_in="digits")
    settings()
    launch.train(config, tmp_path / "run", stand_in="digits")
    assert digest(tmp_path / "run", 2) == digest(tmp_path / "plain", 2)
    assert load_network(tmp_path / "run").step == 2
    assert jax.config.jax_enable_x64, "the program has its own settings back"


def test_a_run_goes_on_in_the_environment_that_it_had(call, plain, monkeypatch):
    manifest = plain / "manifest.json"
    go_on = ("mnist.py", *MLP, "--config.train.steps=3", f"--workdir={plain}")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("NPROC", "1")
    refused = call(*go_on)
    assert refused.returncode == 2
    assert re.fullmatch(
        r"error: .*differs in NPROC unset -> 1, XLA_FLAGS --xla_cpu_enable_fast_math"
        r" unset -> true: need the same.*\n",
        refused.stderr,
    )
    # A run of before recorded nothing of it.
    stored = json.loads(manifest.read_text())
    assert "XLA_FLAGS --xla_cpu_enable_fast_math" not in stored.pop("environment")
    manifest.write_text(json.dumps(stored))
    assert call(*go_on).returncode == 0
    recorded = json.loads(manifest.read_text())["environment"]
    assert recorded["XLA_FLAGS --xla_cpu_enable_fast_math"] == "true"


@pytest.fixture(scope="module")
def run(environment, scripts):
    """Returns (command in a shell, **variables) -> the finished process.

    $M is a run of 20 steps, with the flags that are set.
    """

    def run(command, cwd, **variables):
        flags = (*MLP, "--config.train.steps=20", "--config.train.tensorboard=False")
        script = f"{sys.executable} {scripts}/mnist.py {' '.join(flags)}"
        return subprocess.run(
            ["bash", "-c", command],
            env=environment | {"M": script} | variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory):
    """The state of a run in which no variable is set."""
    folder = tmp_path_factory.mktemp("runs")
    done = run("$M --workdir=run", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return digest(folder / "run", 20)


IGNORED = r"warning: {} has no effect here: .*\n"
NO_EFFECT = (
    "JAX_ENABLE_X64=1",
    "JAX_THREEFRY_PARTITIONABLE=0",
    "JAX_DEFAULT_PRNG_IMPL=rbg",
    "JAX_RANDOM_SEED_OFFSET=7",
    "JAX_DEFAULT_DEVICE=gpu",
    "JAX_DISABLE_JIT=1",
    "JAX_TRANSFER_GUARD=disallow",
    "FLAX_FIX_RNG_SEPARATOR=1",
)
REFUSED = {
    "JAX_PLATFORMS=foo": "JAX cannot start with .*JAX_PLATFORMS=foo",
    "JAX_NUM_CPU_DEVICES=0": "JAX cannot start with .*JAX_NUM_CPU_DEVICES=0",
    "JAX_NUM_CPU_DEVICES=two": 'cannot start with .*"two" for JAX flag',
    "FLAX_PROFILE=perhaps": "JAX cannot start with .*FLAX_PROFILE=perhaps",
    "JAX_DEFAULT_MATMUL_PRECISION=F16_F16_F32": "this fails with JAX_DEFAULT_MATMUL",
}
SAME = (
    "JAX_NUMPY_RANK_PROMOTION=raise",
    "OMP_NUM_THREADS=1",
    "PYTHONHASHSEED=7",
    "PYTHONOPTIMIZE=2",
    "TMPDIR=/nonexistent",
    "COLUMNS=1",
)


@pytest.mark.slow
@pytest.mark.parametrize("variable", [*NO_EFFECT, *REFUSED, *SAME])
def test_a_variable_changes_nothing_or_is_named(run, expected, tmp_path, variable):
    name, value = variable.split("=")
    done = run("$M --workdir=run", tmp_path, **{name: value})
    if variable in REFUSED:
        assert done.returncode == 2
        assert re.fullmatch(f"error: .*{REFUSED[variable]}.*\n", done.stderr)
        return
    said = IGNORED.format(variable) if variable in NO_EFFECT else ""
    assert done.returncode == 0
    assert re.fullmatch(said, done.stderr)
    assert digest(tmp_path / "run", 20) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "err"),
    [
        ("$M --workdir=run >&-", 0, ""),
        ("$M --workdir=run 2>&-", 0, ""),
        ("$M --workdir=run <&- >&- 2>&-", 0, ""),
        (
            "env XDG_CACHE_HOME=/dev/null JAX_COMPILATION_CACHE_DIR=$PWD/own $M"
            " --workdir=run",
            *(0, ""),
        ),
        ("MPLBACKEND=nonsense $M --workdir=run --config.train.report=True", 0, ""),
        (
            "env XDG_CACHE_HOME=/dev/null $M --workdir=run",
            0,
            "warning: compiled programs are not kept, as /dev/null/.*\n",
        ),
        (
            "set -o pipefail; $M --workdir=run --config.train.steps=100000 | head -12",
            141,
            r"error: SIGPIPE: stopped at step \d+, saved; the same command .*=run\n",
        ),
    ],
)
def test_streams_and_caches_that_cannot_be_written(run, tmp_path, command, code, err):
    done = run(command, tmp_path)
    assert done.returncode == code
    assert re.fullmatch(err, done.stderr), done.stderr
    assert any((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_slurm_warns_and_the_same_command_goes_on(start, tmp_path):
    """As with `--signal=USR1@60` and `--requeue`."""
    flags = (*MLP, "--config.train.steps=200000", "--workdir=run")
    for resumed in (False, True):
        process = start("mnist.py", *flags, cwd=tmp_path)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step ") and len(lines) > 30:
                break
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGUSR1
        assert re.match(r"error: SIGUSR1: stopped at step \d+, saved; the same", err)
        assert any(line.startswith("resuming run at") for line in lines) == resumed


@pytest.mark.slow
def test_a_user_without_an_account_or_home(environment, scripts, tmp_path):
    """As in a container that is given another user's number."""
    becoming = (
        "import os, pwd, sys, runpy; os.environ.pop('HOME');"
        "pwd.getpwuid = lambda uid: {}[uid];"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", becoming, str(scripts / "mnist.py")]
    variables = {k: v for k, v in environment.items() if k != "XDG_CACHE_HOME"}
    for flags, code, err in (
        ((*MLP, "--config.train.steps=2"), 0, "warning: compiled programs are not .*"),
        (("--config.data.on_missing=error", "--config.data.download=False"), 2, ".*"),
    ):
        done = subprocess.run(
            [*command, *flags],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert re.fullmatch(err, done.stderr.splitlines()[0]), done.stderr
