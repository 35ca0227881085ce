"""Signals at any moment, a disk that fails under a run, and the best checkpoint."""

import dataclasses
import json
import os
import random
import re
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from cnnjax import evaluation, training
from cnnjax.runtime.clocks import Compiled
from cnnjax.updates import ResidentUpdate
from cnnjax.workdir import files

MLP = (
    "--config=configs/mlp.py",
    "--config.data.source=embedded",
    "--config.data.pipeline=device",
    "--config.train.batch_size=16",
    "--config.train.log_every=1",
)


def saved_steps(workdir):
    found = (path.name for path in (workdir / "checkpoints").iterdir())
    return sorted(int(name) for name in found if name.isdecimal())


def eval_lines(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "eval/loss" in line]


def final_test(workdir):
    final = json.loads((workdir / "final_metrics.json").read_text())
    return {name: value for name, value in final.items() if name.startswith("test/")}


def signalling(monkeypatch, owner, name, when, signum):
    """Has a signal come as the function is called, where `when` says of its call."""
    original = getattr(owner, name)

    def called(*arguments, **named):
        if when(arguments):
            monkeypatch.undo()
            os.kill(os.getpid(), signum)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, called)


@pytest.fixture(scope="module")
def straight(call, tmp_path_factory):
    """The evaluations and the test of the run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    flags = ("--config.train.steps=4", "--config.train.eval_every=2")
    done = call("mnist.py", *MLP, *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "evaluating on" not in done.stdout
    lines, final = eval_lines(workdir), final_test(workdir)
    assert final == {name: lines[-1][name.replace("test", "eval")] for name in final}
    return lines, final


@pytest.mark.parametrize(
    ("owner", "name", "when", "step", "signum"),
    [
        (Compiled, "prepare", lambda args: True, 1, signal.SIGINT),
        (evaluation.Evaluator, "__call__", lambda args: True, 2, signal.SIGTERM),
        (training, "evaluate_state", lambda args: args[1].step == 4, 4, signal.SIGINT),
        (files, "write_json", lambda args: "final" in args[0].name, 4, signal.SIGTERM),
    ],
    ids=["compile", "evaluation", "final-evaluation", "final-metrics"],
)
def test_a_signal_at_any_moment(
    call, straight, tmp_path, monkeypatch, capfd, owner, name, when, step, signum
):
    workdir = tmp_path / "run"
    flags = (*MLP, "--config.train.steps=4", "--config.train.eval_every=2")
    signalling(monkeypatch, owner, name, when, signum)
    done = call("mnist.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 128 + signum
    assert done.stderr == (
        f"error: {signum.name}: stopped at step {step}, saved; the same command goes"
        f" on, with --workdir={workdir}\n"
    )
    said = capfd.readouterr().out
    assert said.startswith(f"{signum.name}: saving after the step, chunk, evaluation")
    assert saved_steps(workdir)[-1] == step
    done = call("mnist.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert (eval_lines(workdir), final_test(workdir)) == straight


def test_the_best_is_kept_and_can_be_evaluated(call, tmp_path):
    workdir = tmp_path / "run"
    flags = (
        "--config.data.val_examples=100",
        "--config.train.steps=12",
        "--config.train.eval_every=1",
        "--config.train.checkpoint_every=0",
        # High enough for the accuracy to go up and down.
        "--config.optim.learning_rate=0.2",
        f"--workdir={workdir}",
    )
    done = call("mnist.py", *MLP, *flags)
    assert done.returncode == 0, done.stderr
    lines = eval_lines(workdir)
    assert {line["eval/split"] for line in lines} == {"validation"}
    best = max(lines, key=lambda line: (line["eval/accuracy"], -line["step"]))
    assert best["step"] < 12, "else this shows little"
    final = json.loads((workdir / "final_metrics.json").read_text())
    assert final["best/step"] == best["step"]
    assert final["best/eval_accuracy"] == best["eval/accuracy"]
    assert set(saved_steps(workdir)) >= {best["step"], 12}
    latest = call("evaluate.py", f"--workdir={workdir}").stdout
    assert latest in done.stdout
    shutil.rmtree(workdir / "checkpoints" / "12")
    best_of = call("evaluate.py", f"--workdir={workdir}", "--checkpoint=best")
    assert (best_of.returncode, best_of.stderr) == (0, "")
    # The figures of the same steps as a run of their own.
    alone = call(
        "mnist.py",
        *MLP,
        *flags[:1],
        *flags[4:5],
        f"--config.train.steps={best['step']}",
        f"--workdir={tmp_path / 'alone'}",
    )
    assert best_of.stdout in alone.stdout


def test_the_data_move_and_the_run_goes_on(call, make_npz, tmp_path):
    """The arrays decide whether they are the run's, not where they lie."""
    grey = np.random.default_rng(1).integers(0, 256, (8, 28, 28), np.uint8)
    own = {"x_val": grey, "y_val": np.arange(8, dtype=np.uint8)}
    files_of = [
        make_npz((28, 28), **own).rename(tmp_path / name) for name in ("a.npz", "b.npz")
    ]
    other = make_npz((28, 28))

    def train(file, steps, workdir="run"):
        return call(
            "mnist.py",
            *MLP,
            "--config.data.source=npz",
            f"--config.data.file={file}",
            "--config.train.eval_every=1",
            f"--config.train.steps={steps}",
            f"--workdir={tmp_path / workdir}",
        )

    assert train(files_of[0], 2).returncode == 0
    files_of[0].unlink()
    moved = train(files_of[1], 4)
    assert (moved.returncode, moved.stderr) == (0, "")
    change = f"data.file '{files_of[0]}' -> '{files_of[1]}': another way to the run's"
    assert change in moved.stdout and "at step 2" in moved.stdout
    refused = train(other, 4)
    assert refused.returncode == 2
    assert "holds a run on b, whose pictures differ from what was" in refused.stderr
    straight = train(files_of[1], 4, "straight")
    lines = eval_lines(tmp_path / "run")
    assert lines == eval_lines(tmp_path / "straight") and straight.returncode == 0
    # The file's own validation split ranks the checkpoints.
    assert {line["eval/split"] for line in lines} == {"validation"}
    assert {line["eval/count"] for line in lines} == {8}
    best = call("evaluate.py", f"--workdir={tmp_path / 'run'}", "--checkpoint=best")
    assert (best.returncode, best.stderr) == (0, "")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--checkpoint=best", "has no best checkpoint, which takes data.val_examples"),
        ("--checkpoint=newest", "should be one of <latest"),
    ],
)
def test_a_checkpoint_that_is_not_there(call, tmp_path, flag, words):
    workdir = tmp_path / "run"
    done = call("mnist.py", *MLP, "--config.train.steps=1", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    done = call("evaluate.py", f"--workdir={workdir}", flag)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{words}.*\n", done.stderr)


def test_another_runs_checkpoints_are_refused(call, tmp_path, snapshot):
    mine, other = tmp_path / "mine", tmp_path / "other"
    for seed, workdir in enumerate([mine, other]):
        flags = (f"--config.seed={seed}", "--config.train.steps=1")
        done = call("mnist.py", *MLP, *flags, f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
    shutil.rmtree(mine / "checkpoints")
    shutil.copytree(other / "checkpoints", mine / "checkpoints")
    before = snapshot(mine)
    flags = ("--config.train.steps=2", f"--workdir={mine}")
    for done in (call("mnist.py", *MLP, *flags), call("evaluate.py", flags[1])):
        assert done.returncode == 2
        line = r"error: .*/1 is a checkpoint of another run: .*; seed 1, need 0;.*\n"
        assert re.fullmatch(line, done.stderr), done.stderr
    (mine / "config.json").unlink()
    shutil.copy(other / "config.json", mine / "config.json")
    assert call("evaluate.py", flags[1]).returncode == 0
    assert snapshot(mine).keys() == before.keys()


def test_parameters_that_overflow_right_before_a_save(call, tmp_path, monkeypatch):
    """No loss has shown it yet: that of this step was taken before its update."""
    workdir = tmp_path / "run"
    update = ResidentUpdate.__call__

    def overflowing(self, state, steps, *, fetch):
        state, metrics = update(self, state, steps, fetch=fetch)
        factor = np.inf if steps.stop == 3 else 1.0
        params = jax.tree.map(lambda leaf: leaf * factor, state.params)
        return dataclasses.replace(state, params=params), metrics

    monkeypatch.setattr(ResidentUpdate, "__call__", overflowing)
    flags = ("--config.train.steps=3", "--config.train.checkpoint_every=1")
    done = call("mnist.py", *MLP, *flags, f"--workdir={workdir}")
    assert done.returncode == 1
    line = r"error: \.params\S* is not finite after 3 steps, which are not saved;.*\n"
    assert re.fullmatch(line, done.stderr), done.stderr
    assert saved_steps(workdir) == [1, 2]


def fill_the_disk(process, workdir):
    """No file may grow beyond 100 kB from now on: writing fails as on a full disk."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))


def take_the_folder_away(process, workdir):
    workdir.rename(workdir.with_name("elsewhere"))


@pytest.mark.parametrize(
    "fail",
    [pytest.param(fill_the_disk, marks=pytest.mark.slow), take_the_folder_away],
)
def test_a_disk_that_fails_under_a_run(start, call, tmp_path, fail):
    workdir = tmp_path / "run"
    flags = (*MLP, "--config.train.steps=1000000", "--config.train.checkpoint_every=20")
    process = start("mnist.py", *flags, f"--workdir={workdir}", cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("step 50,"):
            break
    fail(process, workdir)
    begun = time.perf_counter()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.perf_counter() - begun < 30
    # XLA complains before of programs that come from the cache.
    assert "Traceback" not in err
    line = r"error: a checkpoint could not be written to .* earlier ones are kept: .*"
    assert re.fullmatch(line, err.splitlines()[-1]), err
    if fail is take_the_folder_away:
        workdir = workdir.with_name("elsewhere")
    done = call("evaluate.py", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert saved_steps(workdir)[-1] >= 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_damage_gives_a_traceback(call, tmp_path):
    """A sample of what `tests/corruption.py` does, through the scripts."""
    workdir = tmp_path / "run"
    flags = (*MLP, f"--workdir={workdir}")
    done = call("mnist.py", *flags, "--config.train.steps=2")
    assert done.returncode == 0, done.stderr
    files = sorted(p for p in (workdir / "checkpoints").rglob("*") if p.is_file())
    draw = random.Random(0)
    codes = set()
    for trial in range(30):
        path = draw.choice(files)
        whole = path.read_bytes()
        bit = draw.randrange(8 * max(1, len(whole)))
        content = bytearray(whole or b"\0")
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content if trial % 2 else whole[: bit // 8])
        resumed = call("mnist.py", *flags, "--config.train.steps=3")
        path.write_bytes(whole)
        shutil.rmtree(workdir / "checkpoints" / "3", ignore_errors=True)
        (workdir / "final_metrics.json").unlink(missing_ok=True)
        lines = resumed.stderr.splitlines()
        assert all(line.startswith(("error: ", "warning: ")) for line in lines)
        assert len(lines) == (0 if resumed.returncode == 0 else 2)
        codes.add(resumed.returncode)
    assert codes == {0, 1}
