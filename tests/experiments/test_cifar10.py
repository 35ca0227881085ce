import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cnnjax import config as configs
from cnnjax.run import abstract_state, recipe_of, restore
from cnnjax.workdir import files

NOTE = "its accuracy says nothing about cifar10"
STEP_LINE = r"step (\d+), loss=\d+\.\d\d \(\d+\.\d examples/sec; \d+\.\d{3} sec/batch\)"
SMALL = ("--config.model.width=0.25", "--config.train.batch_size=16")


@pytest.fixture(scope="module")
def embedded_run(start, tmp_path_factory):
    """The chapter's job where there is nothing: its folder, and what it printed."""
    cwd = tmp_path_factory.mktemp("cwd")
    process = start(
        "cifar10.py",
        "--config=configs/base.py",
        *SMALL,
        "--config.train.steps=4",
        "--config.train.log_every=1",
        cwd=cwd,
    )
    out, err = process.communicate()
    assert process.returncode == 0, err
    (workdir,) = (cwd / "runs").iterdir()
    return workdir, out


def records(workdir):
    """Returns the lines of metrics.jsonl but for what the clock says."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith("perf/")}
        for line in lines
    ]


def final_metrics(workdir):
    return json.loads((workdir / "final_metrics.json").read_text())


def untimed(final):
    return {k: v for k, v in final.items() if "seconds" not in k and "perf" not in k}


def state_bytes(workdir):
    """Returns path -> bytes of every array of the newest state."""
    config = configs.from_stored(files.read_json(workdir / files.CONFIG))
    like = abstract_state(recipe_of(config, num_classes=10), (32, 32, 3))
    leaves, _ = jax.tree_util.tree_flatten_with_path(restore(workdir, like))
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves
    }


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


def read_until(process, step):
    """Reads what a script prints until its line of `step` or a later one."""
    for line in process.stdout:
        match = re.match(STEP_LINE, line)
        if match and int(match[1]) >= step:
            return
    pytest.fail(f"no line of step {step}: {process.stderr.read()}")


def test_without_data_or_network_it_trains_on_embedded_pictures_and_says_so(
    embedded_run,
):
    workdir, printed = embedded_run
    # Found beside the script: the current folder has no configs/.
    assert re.fullmatch(r"base-\d{8}-\d{6}", workdir.name)
    lines = printed.splitlines()
    for line in (lines[0], lines[-1]):
        assert NOTE in line and "'shapes'" in line and workdir.name in line
        assert "inspect_data.py says where to get it" in line
    steps = [m[1] for line in lines if (m := re.fullmatch(STEP_LINE, line))]
    assert steps == ["0", "1", "2", "3"]

    final = final_metrics(workdir)
    (precision,) = (line for line in lines if line.startswith("precision"))
    assert re.fullmatch(
        rf"precision @ 1 = {final['test/accuracy']:.3f}"
        rf" \({final['test/correct']}/2000\) on shapes\b.*",
        precision,
    )
    assert final.keys() == {
        "dataset",
        "steps",
        "num_params",
        "test/accuracy",
        "test/correct",
        "test/count",
        "test/loss",
        "train_seconds",
        "perf/examples_per_sec",
        "compile_seconds",
    }
    assert (final["dataset"], final["steps"]) == ("shapes", 4)
    assert final["test/accuracy"] == final["test/correct"] / 2000
    # 5x5 convolutions to 16 maps, 6x6 positions after two poolings, 96, 48, 10 units.
    sizes = [(75, 16), (400, 16), (576, 96), (96, 48), (48, 10)]
    assert final["num_params"] == sum(n * m + m for n, m in sizes)


def test_the_readme_shows_what_is_printed(embedded_run):
    """Line by line, but for numbers and for where the data come from."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    sample = readme.partition("<!-- console:")[2].split("```")[1]

    def form(line):
        return re.sub(r"[-\d.,/x]+", "0", line.partition(" on ")[0]).split()[:4]

    sample, printed = (x.replace("; ", "\n") for x in (sample, embedded_run[1]))
    forms = iter(map(form, printed.splitlines()))
    for line in sample.splitlines()[1:]:
        label = line.split()[0]
        if label in ("folder:", "data:", "its"):
            assert any(found[:1] == [label] for found in forms), line
        elif label not in ("reading", "TensorBoard:"):
            assert form(line) in forms, line


def test_the_files_of_a_run_are_what_the_contract_says(embedded_run):
    workdir, _ = embedded_run
    lines = [
        json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    for line in lines[:4]:
        assert line.keys() == {
            "step",
            "train/loss",
            "train/cross_entropy",
            "train/l2",
            "train/accuracy",
            "train/learning_rate",
            "perf/examples_per_sec",
            "perf/sec_per_batch",
        }
        parts = line["train/cross_entropy"] + line["train/l2"]
        assert line["train/loss"] == pytest.approx(parts, rel=1e-6)
    # Before any update the network knows nothing: log 10 nats, within a little.
    assert lines[0]["train/cross_entropy"] == pytest.approx(np.log(10), abs=0.05)
    final = final_metrics(workdir)
    tested = {k.replace("test/", "eval/"): final[k] for k in final if "test/" in k}
    assert lines[4] == {"step": 4, "eval/split": "test"} | tested

    config = configs.flatten(json.loads((workdir / "config.json").read_text()))
    assert config.keys() == configs.fields("CifarCNN").keys()
    given = {"train.steps": 4, "train.batch_size": 16, "model.width": 0.25}
    chapter = {"data.crop": 24, "optim.l2": 0.004, "model.lrn_beta": 0.75}
    assert config | given | chapter == config

    manifest = json.loads((workdir / "manifest.json").read_text())
    assert manifest.keys() >= {"versions", "devices", "precision", "flags", "commit"}
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["data"]["name"] == "shapes"
    assert re.fullmatch(r"[0-9a-f]{64}", manifest["data"]["fingerprint"])
    assert saved_steps(workdir) == [4]


@pytest.mark.timeout(900)  # four processes, on a machine that may be busy
def test_stopped_killed_and_resumed_it_ends_with_the_same_bytes(start, tmp_path):
    flags = (
        "--config=configs/base.py",
        *SMALL,
        "--config.train.steps=240",
        "--config.train.log_every=10",
        "--config.train.eval_every=120",
        "--config.train.checkpoint_every=60",
    )
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    uninterrupted = start("cifar10.py", *flags, f"--workdir={straight}", cwd=tmp_path)

    def run_until(step, signum):
        process = start("cifar10.py", *flags, f"--workdir={stopped}", cwd=tmp_path)
        read_until(process, step)
        process.send_signal(signum)
        _, err = process.communicate()
        return process.returncode, err.splitlines()[-1:]

    code, (said,) = run_until(20, signal.SIGTERM)
    first = saved_steps(stopped)[-1]
    assert (code, said) == (
        143,
        f"error: SIGTERM: stopped at step {first}, saved; the same command goes on,"
        f" with --workdir={stopped}",
    )
    assert 20 < first < 240
    code, _ = run_until(150, signal.SIGKILL)
    assert code == -signal.SIGKILL and not (stopped / "final_metrics.json").exists()
    last = start("cifar10.py", *flags, f"--workdir={stopped}", cwd=tmp_path)
    out, err = last.communicate()
    assert last.returncode == 0, err
    assert f"resuming {stopped} at step" in out

    _, err = uninterrupted.communicate()
    assert uninterrupted.returncode == 0, err
    assert records(stopped) == records(straight)
    trained = [line["step"] for line in records(straight) if "train/loss" in line]
    evaluated = [line["step"] for line in records(straight) if "eval/loss" in line]
    assert (trained, evaluated) == (list(range(0, 240, 10)), [120, 240])
    assert untimed(final_metrics(stopped)) == untimed(final_metrics(straight))
    assert state_bytes(stopped) == state_bytes(straight)


@pytest.mark.parametrize("script", ["cifar10.py", "mnist.py", "evaluate.py"])
def test_help_is_quick_and_waits_for_no_framework(environment, scripts, script):
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", str(scripts / script), "--help"],
            env=environment,
            capture_output=True,
            text=True,
        )
        seconds.append(time.perf_counter() - begun)
    assert done.returncode == 0
    assert "--config.FIELD=VALUE" in done.stdout and "--workdir=DIR" in done.stdout
    assert min(seconds) < 2
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "ml_collections" in imported
    assert not imported & {"jax", "tensorflow", "tensorflow_datasets", "flax"}


@pytest.mark.slow
def test_many_steps_on_every_core_do_not_deadlock(start, tmp_path) -> None:
    """Steps that are not waited for take the threads that an all-reduce waits on."""
    process = start(
        "cifar10.py",
        "--config.data.source=embedded",
        "--config.model.width=0.05",
        "--config.parallel.num_devices=2",
        "--config.train.batch_size=16",
        "--config.train.steps=300",
        "--config.train.log_every=300",
        cwd=tmp_path,
    )
    # XLA gives a step that does not meet the others 40 seconds, then aborts.
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "devices: 2 x cpu" in out
