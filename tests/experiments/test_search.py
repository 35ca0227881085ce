"""A search: resumable, ranked on validation pictures, blind to the test set."""

import json
import re

import numpy as np
import pytest

from cnnjax.config import default_config
from cnnjax.data import load
from cnnjax.errors import InputError
from cnnjax.workdir import files
from search import changed, named, parse_grid, table

FLAGS = (
    "--config=configs/mlp.py",
    "--config.data.source=npz",
    "--config.data.pipeline=device",
    "--config.data.val_examples=20",
    "--config.train.steps=6",
    "--config.train.batch_size=10",
    "--config.train.log_every=2",
)


@pytest.fixture(scope="module")
def without_test_set(make_npz, tmp_path_factory):
    """A file whose test arrays cannot be read."""
    file = tmp_path_factory.mktemp("npz") / "blind.npz"
    whole = np.load(make_npz((28, 28, 1)))
    with open(file, "wb") as stream:
        np.savez(stream, x_train=whole["x_train"], y_train=whole["y_train"])
    return file


@pytest.fixture(scope="module")
def searched(call, without_test_set, tmp_path_factory):
    """The folder of a search of four runs, made in two calls, and what they printed."""
    folder = tmp_path_factory.mktemp("search")
    flags = (*FLAGS, f"--config.data.file={without_test_set}", f"--workdir={folder}")
    rates = "--vary=optim.learning_rate=[0.1, 0.01]"
    printed = []
    for more in ([], ["--vary=model.keep_prob=[1, 0.5]"]):
        done = call("search.py", *flags, rates, *more)
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout)
    return folder, flags, printed


def test_it_needs_no_test_set(call, searched, without_test_set, tmp_path):
    folder, _, _ = searched
    found = json.loads((folder / "search.json").read_text())
    for run in found["runs"]:
        assert not [key for key in run if key.startswith("test")]
        assert run["val/count"] == 20
    # It is there that a test set is missed: training proper refuses this file.
    flags = [flag for flag in FLAGS if "val_examples" not in flag]
    file = f"--config.data.file={without_test_set}"
    done = call("mnist.py", *flags, file, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2 and "x_test" in done.stderr


def test_grids_add_up_and_the_best_is_first(searched):
    folder, _, (first, second) = searched
    found = json.loads((folder / "search.json").read_text())["runs"]
    assert [len(re.findall("^run ", text, re.M)) for text in (first, second)] == [2, 4]
    scores = [run["val/accuracy"] for run in found]
    assert scores == sorted(scores, reverse=True)
    # mlp.py has 0.3 and 0.75; six steps of 10 and so on are the search's own.
    assert sorted(sorted(run["changed"].items()) for run in found) == sorted(
        sorted(({"optim.learning_rate": rate} | keep).items())
        for rate in (0.1, 0.01)
        for keep in ({}, {"model.keep_prob": 1.0}, {"model.keep_prob": 0.5})
    )


def test_the_table_has_no_column_without_a_figure():
    plain = {"val/accuracy": 0.5, "changed": {"seed": 1}}
    averaged = {"val/accuracy": 0.25, "val_ema/accuracy": 1.0, "changed": {}}
    assert table([plain]) == "      val  changed\n   50.00%  seed=1"
    assert table([averaged, plain]).splitlines() == [
        "      val  val_ema  changed",
        "   25.00%  100.00%  as --config has it",
        "   50.00%           seed=1",
    ]


def test_what_is_finished_is_not_trained_again(call, searched, snapshot):
    folder, flags, _ = searched
    before = snapshot(folder)
    done = call("search.py", *flags, "--vary=optim.learning_rate=[0.1, 0.01]")
    assert done.returncode == 0
    assert done.stdout.count("is finished") == 2
    assert snapshot(folder) == before


def test_a_point_that_fails_does_not_stop_the_others(call, without_test_set, tmp_path):
    flags = (*FLAGS, f"--config.data.file={without_test_set}")
    rates = "--vary=optim.learning_rate=[1e30, 0.1]"
    done = call("search.py", *flags, rates, f"--workdir={tmp_path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r'^failed: \{"optim.learning_rate": 1e\+30\}: ', done.stdout, re.M)
    (run,) = json.loads((tmp_path / "search.json").read_text())["runs"]
    assert run["changed"]["optim.learning_rate"] == 0.1
    alone = "--vary=optim.learning_rate=[1e30]"
    done = call("search.py", *flags, alone, f"--workdir={tmp_path / 'alone'}")
    assert done.returncode == 1 and "error: failed: " in done.stderr


def test_two_do_not_search_in_one_folder(call, searched):
    folder, flags, _ = searched
    with files.locked(folder, "workdir"):
        done = call("search.py", *flags, "--vary=optim.learning_rate=[0.1]")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .* is in use by .* --workdir\n", done.stderr)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.data.val_examples=0", "need a validation split"),
        ("--vary=data.val_examples=[20, 0]", "need a validation split"),
        ("--vary=train.report=[true]", "a report opens the test set"),
        ("--vary=parallel.distributed=[true]", "search on one host"),
        ("--vary=train.log_every=[1, 2]", "need points that train differently"),
        ("--vary=optim.learning_rate", "need FIELD="),
        ("--vary=optim.learning_rate=0.1", "need FIELD="),
        ("--vary=optim.learning_rate=[]", "need FIELD="),
        ("--vary=optim.rate=[1]", "has no field optim.rate"),
        ("--vary=nothing.rate=[1]", "has no field nothing.rate"),
        ("--vary=seed.of=[1]", "has no field seed.of"),
        ("--vary=optim.learning_rate.of=[1]", "has no field optim.learning_rate.of"),
        ("--vary=optim.learning_rate=[true]", "got optim.learning_rate=True"),
        ("--vary=optim.learning_rate=[-1]", "got optim.learning_rate=-1.0"),
        ('--vary=optim.name=["lion"]', "got optim.name='lion'"),
    ],
)
def test_a_bad_grid_is_refused(call, tmp_path, flag, message):
    done = call("search.py", *FLAGS, flag, f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*\n", done.stderr) and message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_grid_is_the_product_of_its_fields():
    assert parse_grid(["a=[1, 2]", 'b=[["x", "y"], []]']) == [
        {"a": 1, "b": ("x", "y")},
        {"a": 1, "b": ()},
        {"a": 2, "b": ("x", "y")},
        {"a": 2, "b": ()},
    ]
    assert parse_grid([]) == [{}]
    with pytest.raises(InputError, match="each field once"):
        parse_grid(["a=[1]", "a=[2]"])


def test_the_configuration_itself_is_left_alone():
    config = default_config("CifarCNN")
    other = changed(config, {"optim.learning_rate": 1, "data.distortions": ("flip",)})
    assert other.optim.learning_rate == 1.0 and other.data.distortions == ("flip",)
    assert config.optim.learning_rate == 1e-3 and config.data.distortions == ()


def test_it_takes_the_set_s_own_validation_split(call, make_npz, tmp_path):
    whole, file = np.load(make_npz((28, 28, 1))), tmp_path / "own.npz"
    arrays = {key: whole[key] for key in ("x_train", "y_train")}
    unreadable = np.array([{"an": "object"}] * 30, dtype=object)
    arrays |= {"x_test": unreadable, "y_test": unreadable}
    np.savez(file, x_val=whole["x_test"][:17], y_val=whole["y_test"][:17], **arrays)
    flags = [flag for flag in FLAGS if "val_examples" not in flag]
    flags += [f"--config.data.file={file}", f"--workdir={tmp_path / 'search'}"]
    vary = '--vary=data.distortions=["shift, rotate"]'
    done = call("search.py", *flags, vary)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = json.loads((tmp_path / "search" / "search.json").read_text())["runs"]
    assert run["val/count"] == 17
    assert run["changed"] == {"data.distortions": ["shift", "rotate"]}
    # The same data elsewhere: nothing is trained anew, and a folder that an earlier
    # version named by data.file too is found.
    moved = file.rename(tmp_path / "moved.npz")
    older = tmp_path / "search" / "0123456789ab"
    (tmp_path / "search" / run["run"]).rename(older)
    done = call("search.py", *flags, f"--config.data.file={moved}", vary)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"resuming {older} at step 6" in done.stdout
    assert [path.parent for path in older.parent.glob("*/checkpoints")] == [older]


def test_a_validation_split_that_is_the_test_set_is_not_searched_with(
    call, make_npz, tmp_path
):
    file = tmp_path / "own.npz"
    with np.load(make_npz((28, 28, 1))) as whole:
        np.savez(file, **{key.replace("test", "val"): whole[key] for key in whole})
    flags = [flag for flag in FLAGS if "val_examples" not in flag]
    flags += [f"--config.data.file={file}", f"--workdir={tmp_path / 'search'}"]
    done = call("search.py", *flags)
    assert done.returncode == 2
    message = "(a validation split without a test split is the test set)"
    assert re.fullmatch(r"error: .*\n", done.stderr) and message in done.stderr


def test_where_the_data_lie_names_a_folder_only_in_a_grid_of_it():
    config = default_config("MLP")
    config.data.val_examples = 100
    (here,) = named(config, [{}])
    config.data.dir = "/scratch/job-7"
    assert list(named(config, [{}])) == [here]
    files = [{"data.dir": path} for path in ("/a", "/b")]
    assert len({here, *named(config, files)}) == 3


def test_folders_are_named_as_by_every_version():
    config = default_config("MLP")
    config.data.val_examples = 100
    rates, devices = {"optim.learning_rate": 0.5}, {"parallel.num_devices": 1}
    decay = {"optim.weight_decay": 0.5}  # which version 0.1.0 did not know
    found = named(config, [{}, rates, devices, decay])
    # What version 0.1.0 named them.
    assert list(found)[:3] == ["90487c0ef833", "eb7a96a222f6", "fa3293b1d3ec"]
    assert list(found.values()) == [{}, rates, devices, decay]


@pytest.mark.parametrize("name", load.EMBEDDED)
def test_an_embedded_set_without_its_test_split(name):
    blind = load.load_embedded(name, with_test=False)
    assert len(blind.test.labels) == len(blind.test.images) == 0
    assert blind.image_shape == blind.test.images.shape[1:]
    left, held = load.hold_out(blind, 7)
    assert len(held.labels) == 7 and len(left.test.labels) == 0
