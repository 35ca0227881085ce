"""Runs of many seeds, from the command line to the files; the MLP compiles quickly."""

import json
import re
import shutil
import statistics

import numpy as np
import pytest
from PIL import Image

from cnnjax import exporting
from cnnjax.network import load_network

NUM_SEEDS, STEPS = 4, 5
FLAGS = (
    "--config=configs/mlp.py",
    "--config.data.pipeline=device",
    "--config.data.source=embedded",
    "--config.train.batch_size=16",
    "--config.train.log_every=1",
    "--config.train.eval_every=3",
    "--config.optim.ema_decay=0.9",
)
MANY = ("--config.num_seeds=4", "--config.parallel.num_devices=2")
CLOCKED = ("perf/", "train_seconds", "compile_seconds")


def read(workdir, name):
    return json.loads((workdir / name).read_text())


def timeless(values):
    return {k: v for k, v in values.items() if not k.startswith(CLOCKED)}


def records(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def digests(workdir, step):
    """Returns array -> SHA-256, as saved; restoring checks them."""
    return read(workdir / "checkpoints" / str(step) / "meta", "metadata")["digest"]


@pytest.fixture(scope="module")
def train(call, tmp_path_factory):
    """Returns (*flags, workdir=) -> the folder of a run and what it printed."""

    def train(*flags, workdir=None):
        workdir = workdir or tmp_path_factory.mktemp("runs") / "run"
        steps = f"--config.train.steps={STEPS}"
        done = call("mnist.py", *FLAGS, steps, *flags, f"--workdir={workdir}")
        assert (done.returncode, done.stderr) == (0, "")
        return workdir, done.stdout

    return train


@pytest.fixture(scope="module")
def straight(train):
    return train(*MANY)


@pytest.fixture(scope="module")
def three_steps(train):
    return train(*MANY, "--config.train.steps=3")[0]


def test_every_seed_is_there_with_mean_and_deviation(straight):
    workdir, printed = straight
    final = read(workdir, "final_metrics.json")
    listed = {k for k, v in final.items() if isinstance(v, list)}
    figures = ("accuracy", "correct", "loss")
    assert listed == {f"{p}/{f}" for p in ("test", "test_ema") for f in figures}
    lines = records(workdir)
    for values in [final, *lines]:
        for key in [key for key, value in values.items() if isinstance(value, list)]:
            assert len(values[key]) == NUM_SEEDS
            mean, std = statistics.mean(values[key]), statistics.stdev(values[key])
            assert values[f"{key}/mean"] == pytest.approx(mean)
            assert values[f"{key}/std"] == pytest.approx(std, abs=1e-12)
    # Every replica is of the same network, and tested on the same pictures.
    assert (final["num_params"], final["test/count"]) == (238_510, 296)
    accuracies = np.array(final["test/correct"]) / 296
    assert final["test/accuracy"] == accuracies.tolist()
    assert len(set(final["test/loss"])) == NUM_SEEDS

    trained = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in trained] == list(range(STEPS))
    for line in trained:
        images = line["perf/examples_per_sec"] * line["perf/sec_per_batch"]
        assert images == pytest.approx(NUM_SEEDS * 16)
        loss = f"step {line['step']}, loss={line['train/loss/mean']:.2f} ("
        assert f"\n{loss}{line['perf/examples_per_sec']:.1f} examples/sec" in printed
    images = final["perf/examples_per_sec"] * final["train_seconds"]
    assert images == pytest.approx(NUM_SEEDS * 16 * STEPS)
    assert "devices: 2 x cpu (jit), 2 of the 4 seeds on each\n" in printed
    precision = (
        f"precision @ 1 = {final['test/accuracy/mean']:.3f}"
        f" ± {final['test/accuracy/std']:.3f} (4 seeds, 296 pictures) on digits [test]"
    )
    assert precision in printed.splitlines()


def test_a_replica_is_the_run_of_its_seed(train, straight):
    k = 3
    workdir, _ = train(f"--config.seed={k}")
    alone, many = records(workdir), records(straight[0])
    for line, both in zip(alone, many, strict=True):
        assert line["step"] == both["step"]
        for key in timeless(line).keys() - {"eval/split"}:
            own = both[key][k] if isinstance(both[key], list) else both[key]
            assert own == pytest.approx(line[key], rel=1e-5), key


def test_a_resumed_run_ends_with_the_same_bytes(train, straight, three_steps, tmp_path):
    workdir = shutil.copytree(three_steps, tmp_path / "resumed")
    _, printed = train(*MANY, workdir=workdir)
    assert f"resuming {workdir} at step 3\n" in printed
    assert digests(workdir, STEPS) == digests(straight[0], STEPS)
    found, expected = map(records, (workdir, straight[0]))
    assert list(map(timeless, found)) == list(map(timeless, expected))
    final = timeless(read(workdir, "final_metrics.json"))
    assert final == timeless(read(straight[0], "final_metrics.json"))
    _, printed = train(*MANY, workdir=workdir)
    assert printed.startswith(f"{workdir} is finished\n") and " ± " in printed


def test_a_checkpoint_of_two_devices_goes_on_with_four(
    train, straight, three_steps, tmp_path
):
    workdir = shutil.copytree(three_steps, tmp_path / "elastic")
    four = ("--config.num_seeds=4", "--config.parallel.num_devices=0")
    _, printed = train(*four, workdir=workdir)
    assert "devices: 4 x cpu (jit), 1 of the 4 seeds on each\n" in printed
    assert "the results will differ in their bytes" in printed
    expected = {line["step"]: line for line in records(straight[0])}
    for line in records(workdir):
        if "train/loss" in line:
            loss = expected[line["step"]]["train/loss"]
            assert line["train/loss"] == pytest.approx(loss, rel=1e-5)


def test_another_number_of_seeds_is_another_run(call, three_steps, snapshot):
    before = snapshot(three_steps)
    flags = (*FLAGS, "--config.num_seeds=2", "--config.train.steps=5")
    done = call("mnist.py", *flags, f"--workdir={three_steps}")
    assert (done.returncode, snapshot(three_steps)) == (2, before)
    assert "num_seeds 4 -> 2" in done.stderr


def test_evaluation_prints_each_seed_and_gives_the_figures_of_training(call, straight):
    workdir, printed = straight
    done = call("evaluate.py", f"--workdir={workdir}")
    assert (done.returncode, done.stderr) == (0, "")
    final = read(workdir, "final_metrics.json")
    correct = final["test/correct"] + final["test_ema/correct"]
    found = re.findall(
        r"^seed (\d): precision @ 1 = .* \((\d+)/296\)", done.stdout, re.M
    )
    seeds = [*range(NUM_SEEDS)] * 2
    assert found == [
        (str(seed), str(n)) for seed, n in zip(seeds, correct, strict=True)
    ]
    means = [line for line in printed.splitlines() if line.startswith("precision")]
    assert len(means) == 2 and set(means) <= set(done.stdout.splitlines())


def test_a_run_that_diverges_names_a_seed_of_it(call, tmp_path):
    flags = ("--config.train.steps=9", "--config.optim.learning_rate=1e38")
    failed = call("mnist.py", *FLAGS, *MANY, *flags, f"--workdir={tmp_path / 'run'}")
    assert failed.returncode == 1
    line = r"error: \w+ is (nan|inf) for seed 0 at step [1-3]; no checkpoint has .*\n"
    assert re.fullmatch(line, failed.stderr)


def test_predictions_are_of_one_seed_or_of_the_mean_of_all(call, straight, tmp_path):
    workdir, _ = straight
    picture = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(picture)

    def probabilities(*flags):
        done = call(
            "predict.py",
            f"--workdir={workdir}",
            "--json",
            "--top_k=10",
            str(picture),
            *flags,
        )
        assert (done.returncode, done.stderr) == (0, "")
        top = json.loads(done.stdout)["pictures"][0]["top"]
        return {one["class"]: one["probability"] for one in top}

    each = [probabilities(f"--seed_index={k}") for k in range(NUM_SEEDS)]
    assert len({tuple(one.items()) for one in each}) == NUM_SEEDS
    for name, value in probabilities().items():
        mean = statistics.mean(one[name] for one in each)
        assert value == pytest.approx(mean, abs=1e-5)
    for index, words in (
        (4, "got replica 4, need 0 to 3"),
        (-2, "got seed_index=-2, need one from 0 on"),
    ):
        flag = f"--seed_index={index}"
        done = call("predict.py", f"--workdir={workdir}", flag, str(picture))
        assert done.returncode == 2
        assert words in done.stderr
    final = read(workdir, "final_metrics.json")
    card = exporting.card(load_network(workdir, 2), workdir)
    assert (card["networks"], card["seed_index"]) == (1, 2)
    name = "test_ema/accuracy"
    assert card["weights"] == "ema_params"
    assert card["accuracy"][name] == final[name][2]
    assert not any(isinstance(v, list) for v in card["accuracy"].values())
    card = exporting.card(load_network(workdir), workdir)
    assert (card["networks"], card["accuracy"]) == (NUM_SEEDS, {})


@pytest.mark.slow
def test_every_seed_is_evaluated_over_many_views(train, make_npz):
    grey = make_npz((32, 32, 1))
    flags = (
        "--config.data.source=npz",
        f"--config.data.file={grey}",
        "--config.data.crop=28",
        "--config.eval.views=5",
    )
    both = read(train(*flags, "--config.num_seeds=2")[0], "final_metrics.json")
    for seed in range(2):
        one = read(train(*flags, f"--config.seed={seed}")[0], "final_metrics.json")
        for key in ("test_multiview/loss", "test_multiview_ema/loss"):
            assert both[key][seed] == pytest.approx(one[key], abs=1e-5)
            assert one[key] != one[key.replace("_multiview", "")]
