"""The MNIST networks, and what any run may do again; the MLP compiles in no time."""

import json
import re
import shutil

import numpy as np
import pytest

NOTE = "its accuracy says nothing about mnist"
SMALL = ("--config.train.batch_size=16", "--config.train.log_every=1")
MLP = ("--config=configs/mlp.py", *SMALL)
CLOCKED = ("perf/", "train_seconds", "compile_seconds")


def read(workdir, name):
    return json.loads((workdir / name).read_text())


def timeless(values):
    return {k: v for k, v in values.items() if not k.startswith(CLOCKED)}


def records(workdir, kind):
    """Returns the lines of metrics.jsonl of one kind, but for what the clock says."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [timeless(line) for line in lines if f"{kind}/loss" in line]


def digests(workdir, step):
    """Returns array -> SHA-256, as saved; restoring checks them."""
    return read(workdir / "checkpoints" / str(step) / "meta", "metadata")["digest"]


@pytest.fixture(scope="module")
def grey(make_npz):
    """Flags that train on a few grey pictures of noise, and the file they are in."""
    file = make_npz(shape=(28, 28))
    return ("--config.data.source=npz", f"--config.data.file={file}"), file


@pytest.fixture(scope="module")
def four_steps(call, grey, tmp_path_factory):
    """The folder of a finished run; tests change copies of it."""
    workdir = tmp_path_factory.mktemp("runs") / "four"
    done = call(
        "mnist.py", *MLP, *grey[0], "--config.train.steps=4", f"--workdir={workdir}"
    )
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def seven_steps(call, grey, tmp_path_factory):
    """The folder of the same run, but for three steps more, made in one go."""
    workdir = tmp_path_factory.mktemp("runs") / "seven"
    flags = (*grey[0], "--config.train.steps=7", f"--workdir={workdir}")
    done = call("mnist.py", *MLP, *flags)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def again(call, grey, four_steps, tmp_path):
    """Returns (*flags) -> the finished run called again with more flags; its folder."""
    workdir = shutil.copytree(four_steps, tmp_path / "again")

    def again(*flags):
        flags = ("--config.train.steps=4", *flags)
        return call("mnist.py", *MLP, *grey[0], *flags, f"--workdir={workdir}")

    return again, workdir


# Weights and biases: two convolutions and two layers; two layers; C1, S2, C3, S4, C5
# and F6 of the paper; and without sub-sampling's, but with all of C3 and ten outputs.
@pytest.mark.parametrize(
    ("flags", "num_params"),
    [
        pytest.param(
            ("--config=configs/mnist.py",),
            832 + 51_264 + 3_212_288 + 10_250,
            marks=pytest.mark.slow,
        ),
        (("--config=configs/mlp.py",), 785 * 300 + 301 * 10),
        pytest.param(("--config=configs/lenet5.py",), 60_000, marks=pytest.mark.slow),
        (
            ("--config=configs/lenet5.py", "--config.model.variant=modern"),
            156 + 2_416 + 48_120 + 10_164 + 850,
        ),
    ],
    ids=["mnist", "mlp", "lenet5", "lenet5-modern"],
)
def test_every_network_trains_on_embedded_digits_and_says_so(
    call, tmp_path, flags, num_params
):
    workdir = tmp_path / "run"
    done = call(
        "mnist.py", *flags, *SMALL, "--config.train.steps=2", f"--workdir={workdir}"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert NOTE in lines[0] and NOTE in lines[-1] and "'digits'" in lines[0]
    printed = re.findall(r"^step (\d+), training accuracy \d\.\d+$", done.stdout, re.M)
    assert printed == ["0", "1"]
    command = f"python experiments/report.py --workdir={workdir}"
    assert str(workdir) in lines[0] and lines[-1].endswith(command)
    final = read(workdir, "final_metrics.json")
    assert (final["dataset"], final["num_params"]) == ("digits", num_params)
    assert f"({final['test/correct']}/{final['test/count']}) on digits" in done.stdout


def test_one_worker_and_sixteen_give_the_same_bytes(call, make_npz, tmp_path):
    file = make_npz(shape=(32, 32))
    for workers in ("1", "16"):
        done = call(
            "mnist.py",
            *MLP,
            "--config.data.source=npz",
            f"--config.data.file={file}",
            "--config.data.crop=28",
            "--config.data.distortions=('crop','flip','brightness','contrast')",
            "--config.train.steps=70",
            f"--config.data.workers={workers}",
            f"--workdir={tmp_path / workers}",
        )
        assert done.returncode == 0, done.stderr
    one, sixteen = tmp_path / "1", tmp_path / "16"
    assert digests(one, 70) == digests(sixteen, 70)
    assert records(one, "train") == records(sixteen, "train")
    assert len(records(one, "train")) == 70


def test_a_finished_run_prints_its_summary_and_needs_no_data(
    again, grey, four_steps, snapshot
):
    rerun, workdir = again
    before = snapshot(workdir)
    hidden = grey[1].rename(grey[1].with_suffix(".hidden"))
    try:
        done = rerun()
    finally:
        hidden.rename(grey[1])
    assert (done.returncode, done.stderr) == (0, "")
    final = read(four_steps, "final_metrics.json")
    assert f"({final['test/correct']}/30) on noise" in done.stdout
    assert f"4 steps in {final['train_seconds']:.1f} s" in done.stdout
    assert snapshot(workdir) == before


def test_a_finished_run_goes_on_when_asked_for_more_steps(again, seven_steps):
    rerun, workdir = again
    done = rerun("--config.train.steps=7")
    assert done.returncode == 0, done.stderr
    assert f"resuming {workdir} at step 4\n" in done.stdout
    assert records(workdir, "train") == records(seven_steps, "train")
    assert [line["step"] for line in records(workdir, "train")] == list(range(7))
    assert [line["step"] for line in records(workdir, "eval")] == [4, 7]
    assert digests(workdir, 7) == digests(seven_steps, 7)
    final = timeless(read(workdir, "final_metrics.json"))
    assert final == timeless(read(seven_steps, "final_metrics.json"))
    assert read(workdir, "config.json")["train"]["steps"] == 7


def test_cadences_and_workers_may_change_and_the_bytes_stay(again, seven_steps):
    rerun, workdir = again
    done = rerun(
        "--config.train.steps=7",
        "--config.train.log_every=2",
        "--config.train.eval_every=3",
        "--config.train.checkpoint_every=1",
        "--config.data.workers=3",
    )
    assert done.returncode == 0, done.stderr
    assert digests(workdir, 7) == digests(seven_steps, 7)
    kept = [line for line in records(seven_steps, "train") if line["step"] != 5]
    assert records(workdir, "train") == kept
    assert [line["step"] for line in records(workdir, "eval")] == [4, 6, 7]


def test_other_devices_are_allowed_and_said(again):
    rerun, workdir = again
    done = rerun("--config.train.steps=5", "--config.parallel.num_devices=2")
    assert done.returncode == 0, done.stderr
    (said,) = (x for x in done.stdout.splitlines() if "num_devices" in x)
    assert "1 -> 2" in said and "bytes" in said
    assert read(workdir, "manifest.json")["devices"]["count"] == 2
    assert read(workdir, "final_metrics.json")["steps"] == 5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--config.seed=1", "--config.optim.learning_rate=0.1"),
            "optim.learning_rate 0.3 -> 0.1, seed 0 -> 1",
        ),
        # Which pictures are held out makes other data, but what was changed is said.
        (("--config.data.val_examples=5",), "data.val_examples 0 -> 5"),
        (("--config.train.steps=3",), "done 4 steps, got train.steps=3"),
    ],
    ids=["fields", "held-out", "steps-past"],
)
def test_another_run_is_refused_with_what_differs(again, snapshot, flags, words):
    rerun, workdir = again
    before = snapshot(workdir)
    done = rerun(*flags)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert snapshot(workdir) == before


def test_other_pictures_of_the_same_name_are_refused(again, grey, make_npz, snapshot):
    rerun, workdir = again
    before = snapshot(workdir)
    kept = grey[1].read_bytes()
    grey[1].write_bytes(make_npz(shape=(28, 28), y_test=[9] * 30).read_bytes())
    try:
        done = rerun("--config.train.steps=5")
    finally:
        grey[1].write_bytes(kept)
    assert done.returncode == 2
    assert "whose pictures differ" in done.stderr
    assert snapshot(workdir) == before


def test_more_steps_are_refused_where_the_schedule_depends_on_them(
    again, call, grey, tmp_path, snapshot
):
    flags = (*MLP, *grey[0], "--config.optim.schedule=linear")
    workdir = tmp_path / "linear"
    done = call("mnist.py", *flags, "--config.train.steps=2", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    before = snapshot(workdir)
    done = call("mnist.py", *flags, "--config.train.steps=3", f"--workdir={workdir}")
    assert (done.returncode, snapshot(workdir)) == (2, before)
    assert "train.steps 2 -> 3" in done.stderr


def test_a_checkpoint_of_another_network_is_refused_and_kept(
    again, call, make_npz, snapshot, tmp_path
):
    rerun, workdir = again
    three = tmp_path / "three"
    file = make_npz(shape=(28, 28), classes=3)
    data = ("--config.data.source=npz", f"--config.data.file={file}")
    flags = (*data, "--config.train.steps=4", f"--workdir={three}")
    assert call("mnist.py", *MLP, *flags).returncode == 0
    shutil.rmtree(workdir / "checkpoints")
    shutil.move(three / "checkpoints", workdir / "checkpoints")
    (workdir / "final_metrics.json").unlink()
    before = snapshot(workdir)
    for done in (rerun(), call("evaluate.py", f"--workdir={workdir}")):
        assert done.returncode == 2
        assert re.fullmatch(
            r"error: .* a checkpoint of another network: .*\n", done.stderr
        )
        assert re.search(r"float32 \[3\], need float32 \[10\]", done.stderr)
        assert snapshot(workdir) == before


def test_a_run_that_diverges_in_its_last_update_fails(call, grey, tmp_path):
    flags = (*grey[0], f"--workdir={tmp_path}", "--config.train.steps=1")
    rate = ("--config.optim.name=sgd", "--config.optim.learning_rate=1e38")
    board = "--config.train.tensorboard=True"  # which looks at what is not finite
    for _ in range(2):  # and again
        failed = call("mnist.py", *MLP, *flags, *rate, board)
        assert failed.returncode == 1
        line = r"error: test/loss is (nan|inf) after step 1: the network has diverged.*"
        assert re.fullmatch(line, failed.stderr.strip())
        assert not (tmp_path / "final_metrics.json").exists()


def test_classes_that_are_not_trained_on_are_named(call, make_npz, tmp_path):
    labels = np.arange(60) // 6
    file = make_npz((28, 28, 1), y_train=labels)
    flags = (f"--config.data.file={file}", "--config.data.source=npz")
    flags += ("--config.data.val_examples=12", "--config.train.steps=1")
    done = call("mnist.py", *MLP, *flags, f"--workdir={tmp_path}")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: no picture of 8, 9 is left to train on;")


def test_a_run_that_diverges_stops_and_saves_nothing_poisoned(call, grey, tmp_path):
    flags = (*grey[0], f"--workdir={tmp_path / 'run'}", "--config.train.steps=9")
    rate = "--config.optim.learning_rate=1e38"
    failed = call("mnist.py", *MLP, *flags, rate, "--config.train.checkpoint_every=1")
    assert failed.returncode == 1
    line = (
        r"error: \w+ is (nan|inf) at step [1-3]; the last good checkpoint is kept, of"
        r" step [1-3]: lower optim.learning_rate in another --workdir.*\n"
    )
    assert re.fullmatch(line, failed.stderr)
    saved = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    stopped = int(re.search(r"at step (\d)", failed.stderr)[1])
    assert max(saved) <= stopped
