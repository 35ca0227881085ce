import json
import re
import shutil

import numpy as np
import pytest

from cnnjax import config as configs
from cnnjax.evaluation import evaluate_state
from cnnjax.run import load_run, restore
from cnnjax.runtime.clocks import Clocks
from cnnjax.workdir import files


@pytest.fixture(scope="module")
def averaged_run(call, tmp_path_factory):
    """A run on embedded digits that keeps an average, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "mlp"
    done = call(
        "mnist.py",
        "--config=configs/mlp.py",
        "--config.train.steps=3",
        "--config.train.batch_size=16",
        "--config.optim.ema_decay=0.9",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def precision_lines(printed):
    return [line for line in printed.splitlines() if line.startswith("precision")]


def evaluated(workdir):
    """Returns the figures that evaluate.py prints of a run, all digits of them."""
    config = configs.from_stored(files.read_json(workdir / files.CONFIG))
    trained, clocks, values = load_run(workdir, config), Clocks(), {}
    state = restore(workdir, trained.init_state())
    for views, prefix in ((1, "test"), (config.eval.views, "test_multiview")):
        if prefix == "test" or views > 1:
            evaluator = trained.evaluator(clocks, views)
            values |= evaluate_state(evaluator, state, trained.dataset.test, prefix)
    return values


def test_its_own_data_give_the_figures_of_the_training(call, averaged_run, snapshot):
    workdir, printed = averaged_run
    before = snapshot(workdir)
    done = call("evaluate.py", "--workdir", str(workdir))
    assert (done.returncode, done.stderr) == (0, "")
    assert precision_lines(done.stdout) == precision_lines(printed)
    first, second = precision_lines(printed)
    assert re.fullmatch(r"precision @ 1 = .* on digits \[test\]", first)
    assert re.fullmatch(r"precision @ 1 = .* on digits \[test_ema\]", second)
    values = evaluated(workdir)
    final = json.loads((workdir / "final_metrics.json").read_text())
    assert values.keys() >= {"test/loss", "test_ema/loss", "test_ema/correct"}
    assert values == {name: final[name] for name in values}
    assert snapshot(workdir) == before


def test_other_pictures_of_the_same_classes_are_counted_under_their_name(
    call, averaged_run, make_npz
):
    blank = np.zeros((7, 28, 28), np.uint8)
    file = make_npz((28, 28), x_test=blank, y_test=[3] * 7)
    other = shutil.copy(file, file.with_name("other.npz"))
    data = ("--config.data.source=npz", f"--config.data.file={other}")
    done = call("evaluate.py", f"--workdir={averaged_run[0]}", *data)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"^precision @ 1 = \d\.\d{3} \(\d/7\) on other\b", done.stdout, re.M
    )


def assert_refused(done, words):
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{words}.*\n", done.stderr), done.stderr


def test_other_classes_are_refused_by_name(call, averaged_run, make_npz, snapshot):
    workdir, _ = averaged_run
    before = snapshot(workdir)
    file = make_npz((28, 28), classes=3)
    data = ("--config.data.source=npz", f"--config.data.file={file}")
    done = call("evaluate.py", f"--workdir={workdir}", *data)
    trained_on = ", ".join(map(str, range(10)))
    assert_refused(done, f"classes 0, 1, 2, need .* digits.*: {trained_on};")
    assert snapshot(workdir) == before


def test_a_run_without_a_checkpoint_is_refused(call, averaged_run, tmp_path):
    workdir = shutil.copytree(averaged_run[0], tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    done = call("evaluate.py", f"--workdir={workdir}")
    assert_refused(done, "has no checkpoint")
    assert not (workdir / "checkpoints").exists()


def test_a_configuration_changed_by_hand_is_refused(call, averaged_run, tmp_path):
    workdir = shutil.copytree(averaged_run[0], tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"seed": "one"}))
    done = call("evaluate.py", f"--workdir={workdir}")
    assert_refused(done, "seed='one', need an integer")


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--config.model.pool=2", "no field.*pool"), ("--nonsense=1", "nonsense")],
)
def test_a_flag_it_does_not_have_is_refused(call, averaged_run, flag, words):
    assert_refused(call("evaluate.py", f"--workdir={averaged_run[0]}", flag), words)


def test_data_that_have_vanished_are_named(call, averaged_run, tmp_path):
    """And nothing stands in for what the run was trained on."""
    workdir = shutil.copytree(averaged_run[0], tmp_path / "run")
    manifest = json.loads((workdir / "manifest.json").read_text())
    manifest["data"]["name"] = "cifar10"
    (workdir / "manifest.json").write_text(json.dumps(manifest))
    done = call("evaluate.py", f"--workdir={workdir}")
    assert_refused(done, "cifar10 is not prepared in .*/tensorflow_datasets")


def test_several_views_are_reported_beside_the_single_one(call, colour_run):
    workdir, printed = colour_run
    final = json.loads((workdir / "final_metrics.json").read_text())
    kinds = ("test", "test_ema", "test_multiview", "test_multiview_ema")
    assert [re.search(r"\[(.*)\]", line)[1] for line in precision_lines(printed)] == [
        *kinds
    ]
    assert [final[f"{kind}/count"] for kind in kinds] == [30] * 4
    assert len({final[f"{kind}/loss"] for kind in kinds}) == 4
    values = evaluated(workdir)
    assert values == {name: final[name] for name in values}
    assert len(values) == 16
    done = call("evaluate.py", f"--workdir={workdir}", "--config.eval.views=1")
    assert precision_lines(done.stdout) == precision_lines(printed)[:2]


def test_views_need_a_crop(call, colour_run):
    flags = (f"--workdir={colour_run[0]}", "--config.data.crop=32")
    done = call("evaluate.py", *flags)
    assert_refused(done, "views=10 with data.crop=32, need a crop smaller .* 32x32")


def test_a_network_that_takes_no_crop(call, averaged_run):
    done = call("evaluate.py", f"--workdir={averaged_run[0]}", "--config.data.crop=24")
    assert_refused(done, "does not fit digits: .*need .*28, 28, 1")
    done = call("report.py", f"--workdir={averaged_run[0]}", "--config.data.crop=24")
    assert (done.returncode, "does not fit digits" in done.stderr) == (0, True)


def test_the_current_folder_is_a_run_s(call, colour_run):
    workdir, printed = colour_run
    done = call("evaluate.py", "--workdir=.", "--config.eval.views=1", cwd=workdir)
    assert precision_lines(done.stdout) == precision_lines(printed)[:2]
