"""What was computed when the goldens were written is computed still.

On the processor and the jaxlib of the goldens to the byte, elsewhere as DESIGN has it.
If you did not mean to change what a run computes, a failure here is a bug; if you did,
say in the commit which programs changed and why (tests/compare_programs.py shows them),
and write the goldens anew.
"""

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.runtime import backend

HERE = Path(__file__).parent
GOLDENS = json.loads((HERE / "goldens.json").read_text())
# A run of 136a9d0 that was killed after the checkpoint of step 12 of 24.
OLD_RUN, EXPECTED = HERE / "old_run", json.loads((HERE / "old_run.json").read_text())

CIFAR = (
    "cifar10.py",
    "--config=configs/base.py",
    "--config.data.source=embedded",
    "--config.train.batch_size=64",
    "--config.train.log_every=5",
)
MNIST = ("mnist.py", "--config.data.source=embedded", "--config.train.log_every=5")
DEVICE = "--config.data.pipeline=device"
RUNS = {
    "tfdata": (
        *CIFAR,
        "--config.train.steps=24",
        "--config.train.eval_every=12",
        "--config.optim.ema_decay=0.9",
        "--config.eval.views=10",
    ),
    "device": (
        *CIFAR,
        DEVICE,
        "--config.train.steps=24",
        "--config.train.steps_per_call=7",
        "--config.train.checkpoint_every=10",
        "--config.data.val_examples=500",
        "--config.train.eval_every=8",
    ),
    "mlp": (
        *MNIST,
        "--config=configs/mlp.py",
        "--config.train.steps=40",
        "--config.optim.warmup_steps=0",
    ),
    "lenet5": (*MNIST, "--config=configs/lenet5.py", "--config.train.steps=20"),
    "two_seeds": (
        *CIFAR,
        DEVICE,
        "--config.train.steps=12",
        "--config.train.steps_per_call=4",
        "--config.num_seeds=2",
        "--config.optim.ema_decay=0.9",
    ),
    "pmap": (*CIFAR, "--config.train.steps=12", "--config.parallel.mode=pmap"),
}


def is_same_machine(golden):
    jaxlib = metadata.version("jaxlib")
    return (backend.cpu_kind(), jaxlib) == (golden["cpu_kind"], golden["jaxlib"])


def seal(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def last_meta(workdir):
    steps = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
    last = max(steps, key=lambda path: int(path.name))
    return json.loads((last / "meta" / "metadata").read_text())


def logged(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [
        {name: value for name, value in line.items() if not name.startswith("perf/")}
        for line in lines
    ]


def finish(start, script, *flags, cwd):
    process = start(script, *flags, cwd=cwd)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_runs_are_as_they_were(start, tmp_path, name):
    workdir, golden = tmp_path / "run", GOLDENS["runs"][name]
    finish(start, *RUNS[name], f"--workdir={workdir}", cwd=tmp_path)
    lines = logged(workdir)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    np.testing.assert_allclose(losses[:2], golden["losses"][:2], rtol=1e-4)
    if is_same_machine(GOLDENS):
        assert losses[:5] == golden["losses"]
        assert seal(lines) == golden["metrics"]
        assert seal(last_meta(workdir)["digest"]) == golden["state"]


@pytest.fixture
def old_run(tmp_path):
    return Path(shutil.copytree(OLD_RUN, tmp_path / "old"))


def flags_of(workdir):
    _, _, *flags = json.loads((workdir / "manifest.json").read_text())["command"]
    return [flag for flag in flags if not flag.startswith("--workdir")]


def test_an_old_run_goes_on(start, old_run):
    """Its configuration lacks fields of today, and it was killed after a checkpoint."""
    finish(start, "cifar10.py", *flags_of(old_run), f"--workdir={old_run}", cwd=old_run)
    meta, lines = last_meta(old_run), logged(old_run)
    assert meta["run"] == EXPECTED["run"]
    assert meta["digest"].keys() == EXPECTED["digest"].keys()
    assert [line["step"] for line in lines] == [
        line["step"] for line in EXPECTED["metrics"]
    ]
    for line, expected in zip(lines, EXPECTED["metrics"], strict=True):
        assert line.keys() == expected.keys()
        if "train/loss" in line:
            assert line["train/loss"] == pytest.approx(expected["train/loss"], 1e-4)
    if is_same_machine(EXPECTED):
        assert lines == EXPECTED["metrics"]
        assert meta["digest"] == EXPECTED["digest"]


@pytest.mark.slow
def test_an_old_run_is_evaluated_and_predicts(call, old_run, tmp_path):
    evaluated = call("evaluate.py", f"--workdir={old_run}")
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    assert "on shapes [test_ema]" in evaluated.stdout
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    predicted = call("predict.py", f"--workdir={old_run}", f"{tmp_path}/black.png")
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert "step: 12" in predicted.stdout


@pytest.mark.slow
def test_an_old_run_is_reported_and_exported(call, old_run, tmp_path):
    reported = call("report.py", f"--workdir={old_run}")
    assert reported.returncode == 0
    assert "is not finished: it has logged step 16 of 24" in reported.stderr
    exported = call("export.py", f"--workdir={old_run}", f"--to={tmp_path}/x.stablehlo")
    assert (exported.returncode, exported.stderr) == (0, "")
