"""The table of claims from the command line: stopped, gone on with, and added to."""

import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from chapter import checks, measure
from cnnjax.errors import MissingPackageError, RunError
from cnnjax.workdir import files

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
ROWS = "mlp,arithmetic"


def flags(folder, *more):
    return (
        "--budget=quick",
        f"--only={ROWS}",
        f"--out={folder / 'results'}",
        f"--workdir={folder / 'runs'}",
        *more,
    )


def read(folder):
    return json.loads((folder / "results" / "claims.json").read_text())


@pytest.fixture(scope="module")
def straight(call, tmp_path_factory):
    """The folder of two rows that were measured in one go, and what was printed."""
    folder = tmp_path_factory.mktemp("claims")
    done = call("claims.py", *flags(folder), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def test_a_row_says_what_it_is_of(straight):
    folder, printed = straight
    found = read(folder)
    rows = {row["row"]: row for row in found["rows"].values()}
    assert list(rows) == ROWS.split(",")
    mlp = rows["mlp"]
    assert (mlp["dataset"], mlp["budget"], mlp["n"]) == ("digits", "quick", 2)
    # 40 steps on other digits: nothing can be said of the chapter's figures.
    assert mlp["verdict"] == checks.TOO_SHORT
    assert rows["arithmetic"]["verdict"] == checks.HOLDS
    # The errors are of the runs: 1 - accuracy, seed by seed.
    cnn, perceptron = (found["runs"][key] for key in mlp["runs"])
    errors = [1 - a for a in perceptron["test/accuracy"]]
    assert mlp["checks"][0]["values"] == pytest.approx(errors)
    cuts = [1 - (1 - a) / b for a, b in zip(cnn["test/accuracy"], errors, strict=True)]
    assert mlp["checks"][1]["values"] == pytest.approx(cuts)
    for run in (cnn, perceptron):
        assert {"command", "versions", "machine", "commit"} <= run.keys()
    # Said before anything was run.
    assert printed.index("stated: error of the MLP") < printed.index("step 0, ")
    assert "SimpleCNN" not in printed.split("stated:")[0]
    Image.open(folder / "results" / "claims.png").verify()


def test_a_finished_row_is_not_measured_again(call, straight, snapshot):
    folder, _ = straight
    before = snapshot(folder)
    done = call("claims.py", *flags(folder), cwd=folder)
    assert done.returncode == 0
    assert "mlp is finished" in done.stdout and "step " not in done.stdout
    assert snapshot(folder) == before


@pytest.mark.slow
def test_a_table_that_was_stopped_goes_on_to_the_same_figures(start, straight, call):
    folder, _ = straight
    other = folder / "stopped"
    other.mkdir()
    process = start("claims.py", *flags(other), cwd=other)
    for line in process.stdout:
        if line.startswith("step 0, "):  # of the first training
            process.send_signal(signal.SIGTERM)
            break
    process.stdout.read()
    assert process.wait() == 143
    done = call("claims.py", *flags(other), cwd=other)
    assert (done.returncode, done.stderr) == (0, "")
    assert "resuming" in done.stdout or "is finished" in done.stdout

    def values(found):
        return {k: [c["values"] for c in r["checks"]] for k, r in found["rows"].items()}

    assert values(read(other)) == values(read(folder))


def test_two_do_not_write_one_table(call, tmp_path):
    with files.locked(tmp_path / "results", "out"):
        done = call("claims.py", *flags(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*results is in use by .* --out\n", done.stderr)


def ends_in(monkeypatch, name, error):
    """Has a row fail."""

    def fails(lab):
        raise error

    failing = dataclasses.replace(measure.ROWS[name], measure=fails)
    monkeypatch.setitem(measure.ROWS, name, failing)


def test_a_training_that_fails_does_not_stop_the_other_rows(
    call, tmp_path, monkeypatch
):
    ends_in(monkeypatch, "mlp", RunError("the loss is nan"))
    done = call("claims.py", *flags(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: mlp failed: the loss is nan\n"
    assert [row["row"] for row in read(tmp_path)["rows"].values()] == ["arithmetic"]
    Image.open(tmp_path / "results" / "claims.png").verify()


def test_a_row_that_was_asked_for_is_not_left_out_in_silence(
    call, tmp_path, monkeypatch
):
    ends_in(monkeypatch, "arithmetic", MissingPackageError("need scikit-image"))
    only = "--only=arithmetic"
    done = call("claims.py", *flags(tmp_path), only, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: arithmetic is left out: need scikit-image\n"
    # Nothing is said to be written that was not.
    (written,) = re.findall(r"wrote (.*)", done.stdout)
    assert written.endswith("claims.png") and "claims.json" not in written


def test_figures_of_a_changed_recipe_are_not_mixed_in(call, straight, tmp_path):
    folder, _ = straight
    (tmp_path / "results").mkdir()
    found = read(folder)
    found["recipes"]["mlp"]["optim.learning_rate"] = 0.25
    (tmp_path / "results" / "claims.json").write_text(json.dumps(found))
    done = call("claims.py", *flags(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "mlp.py now has optim.learning_rate=0.3 (was 0.25)" in done.stderr


def test_the_committed_table_is_of_today_s_recipes(call, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    shutil.copy(RESULTS / "claims.json", results)
    row = "--only=arithmetic"
    done = call("claims.py", *flags(tmp_path), row, "--budget=standard", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "arithmetic is finished" in done.stdout
    recipes = read(tmp_path)["recipes"]
    assert recipes.keys() == {"base", "long", "mnist", "mlp"}


def test_the_repository_s_own_table_is_changed_only_by_a_flag(
    call, tmp_path, monkeypatch
):
    """With it, what is there is gone on with; without it, nothing there is touched."""
    asked = []

    def measured(*arguments, out, **named):
        asked.append(out)

    monkeypatch.setattr(measure, "measure", measured)
    for flags_given in ((), ("--update",), ("--out=x",)):
        assert call("claims.py", *flags_given, cwd=tmp_path).returncode == 0
    assert asked == [Path("runs/claims"), RESULTS, Path("x")]
    done = call("claims.py", "--update", "--out=x", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: got --update and --out=x, need one of them")


@pytest.mark.parametrize(
    "flag", ["--budget=huge", "--only=mnist,nothing", "--mnist=missing_set"]
)
def test_bad_input(call, tmp_path, flag):
    done = call("claims.py", *flags(tmp_path), flag, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
