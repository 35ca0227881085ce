"""The tables of the READMEs: made from the JSON, and from runs that are added to it."""

import json
import re
import shutil
from pathlib import Path

import pytest

import tables
from cnnjax.errors import InputError
from cnnjax.workdir import files
from tabulation import markdown, recording

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path):
    """A copy of the READMEs and the results, which may be rewritten."""
    shutil.copytree(ROOT / tables.RESULTS, tmp_path / tables.RESULTS)
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


@pytest.fixture
def tabulate(call, root):
    """Returns (*flags) -> the script's call on the copy."""
    return lambda *flags: call("tables.py", *flags, f"--root={root}")


def texts(root):
    return [(root / readme).read_text() for readme in tables.READMES]


def recorded(root):
    return json.loads((root / tables.RESULTS / recording.RUNS).read_text())["runs"]


def test_the_readmes_say_what_the_files_say(tabulate, root):
    done = tabulate()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert texts(root) == texts(ROOT)


@pytest.mark.parametrize("readme", tables.READMES, ids=str)
def test_a_figure_changed_by_hand_is_put_right(root, readme):
    text = (root / readme).read_text()
    made = tables.make_tables(root / tables.RESULTS)[readme]
    for table in re.findall(r"<!-- table: .*?<!-- end -->", text, re.DOTALL):
        for figure in set(re.findall(r"\d+\.\d\d|\d,\d{3}", table)):
            changed = table.replace(figure, f"{figure[:-1]}{9 - int(figure[-1])}")
            by_hand = text.replace(table, changed)
            assert by_hand != text
            assert tables.rewritten(by_hand, made) == text


def test_a_figure_changed_in_a_file_changes_the_readmes(root):
    results = root / tables.RESULTS
    before = tables.make_tables(results)

    def changes(file, change):
        """Returns which READMEs differ once `change` is done to a file's content."""
        kept = (results / file).read_text()
        found = json.loads(kept)
        change(found)
        files.write_json(results / file, found)
        made = tables.make_tables(results)
        (results / file).write_text(kept)
        return [made[readme] != before[readme] for readme in tables.READMES]

    for i, run in enumerate(recorded(root)):
        for name in (name for name in run["final"] if name.endswith("/accuracy")):
            other = [0.5] * len(run["seeds"])

            def change(found, i=i, name=name, other=other):
                found["runs"][i]["final"][name] = other

            in_summary, in_results = changes(recording.RUNS, change)
            assert in_results, (run["command"], name)
            assert in_summary or name == "test_multiview/accuracy", run["command"]
        if run["row"].startswith("base"):
            for name in ("first_loss", "last_loss"):

                def change(found, i=i, name=name):
                    found["runs"][i][name] = 9.0

                assert changes(recording.RUNS, change) == [False, True]

    def slower(found):
        case = found["groups"]["peers"]["cases"]["CifarCNN training, cnnjax"]
        case["images_per_second"] = 1.0

    assert changes("benchmark_jax0.10.json", slower) == [True, True]
    for file in list(tables.SPEEDS.values())[1:]:
        assert changes(file, slower) == [False, True]


def test_a_readme_that_lacks_a_table_is_refused(tabulate, root):
    path = root / "README.md"
    path.write_text(path.read_text().replace("<!-- table: speed -->", ""))
    done = tabulate()
    assert done.returncode == 2
    assert "got a README with the tables summary, need each of" in done.stderr


def test_a_finished_run_is_added(tabulate, root, colour_run):
    """To a row that has none: `colour_run` is narrow, and of 40 steps."""
    workdir, _ = colour_run
    path = root / tables.RESULTS / recording.RUNS
    others = [run for run in recorded(root) if run["row"] != "best"]
    files.write_json(path, {"about": "", "runs": others})
    done = tabulate(f"--add={workdir}", "--row=best")
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = (run for run in recorded(root) if run["row"] == "best")
    final = json.loads((workdir / files.FINAL_METRICS).read_text())
    manifest = json.loads((workdir / files.MANIFEST).read_text())
    assert run["final"] == final
    assert (run["seeds"], run["network"], run["batch_size"]) == ([0], "CifarCNN", 16)
    assert run["data"]["fingerprint"] == manifest["data"]["fingerprint"]
    assert run["curve"] == {
        "weights": {"40": final["test/accuracy"]},
        "average": {"40": final["test_ema/accuracy"]},
    }
    assert run["command"].startswith("python experiments/cifar10.py --config.")
    assert run["command"].endswith(" --workdir=runs/cifar")
    for name in ("versions", "machine", "devices", "commit"):
        assert run[name] == manifest[name]
    line = re.escape("| `best.py`, 40 steps of 16 | noise | CifarCNN, ")
    for text in texts(root):
        assert re.search(f"^{line}", text, re.MULTILINE)
    again = tabulate(f"--add={workdir}", "--row=best")
    assert again.returncode == 2
    assert again.stderr.splitlines() == [
        "error: got a run of best with seed 0, which runs.json has already; take that"
        " one out, or add a run of another seed"
    ]


def test_seeds_of_one_program_stand_beside_others_of_their_row(root):
    three = next(run for run in recorded(root) if run["row"] == "fast")
    assert three["seeds"] == [0, 1, 2]
    single = {
        **three,
        "seeds": [3],
        "final": three["final"] | {"test/accuracy": 0.9, "test_multiview/accuracy": 1},
    }
    both = recording.added([single], three)
    assert [run["seeds"] for run in both] == [[0, 1, 2], [3]]
    with pytest.raises(InputError, match="with batch_size 64, need 128 as the others"):
        recording.added(both, single | {"seeds": [4], "batch_size": 64})


def test_accuracy_during_training_is_the_mean_of_the_seeds():
    one = {"curve": {"weights": {"1000": 0.5, "2000": 0.6}, "average": {}}}
    two = {"curve": {"weights": {"1000": [0.6, 0.7], "1500": [0, 0], "2000": [0.9, 0]}}}
    table = ["| after steps | 1,000 | 2,000 |", "|---|---|---|"]
    lines = [*table, "| weights | 60.00% | 50.00% |"]
    rows = {"base": [{"curve": {}}], "long": [one, two]}
    assert markdown.evaluations(rows) == "\n".join(["`long.py`:", "", *lines])
    assert markdown.evaluations({"base": [{"curve": {}}]}) == "No such run is recorded."


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--add=no/folder", "--row=base"], "found nothing there; need the folder of"),
        (["--add=no/folder"], "need both or neither; name the runs and one of the"),
        (["--row=base"], "need both or neither"),
    ],
)
def test_what_cannot_be_added_is_refused(tabulate, root, flags, words):
    check_refused(tabulate, root, flags, words)


def check_refused(tabulate, root, flags, words):
    done = tabulate(*flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
    assert (texts(root), recorded(root)) == (texts(ROOT), recorded(ROOT))


@pytest.mark.parametrize("change", ["unfinished", "untested", "views", "row", "file"])
def test_a_run_that_is_not_whole_is_refused(
    tabulate, root, colour_run, tmp_path, change
):
    workdir, _ = colour_run
    run = shutil.copytree(workdir, tmp_path / "run")
    row, final = "best", run / files.FINAL_METRICS
    words = "need a run that is finished and tested; call its command again"
    if change == "unfinished":
        final.unlink()
    elif change == "untested":
        files.write_json(final, {"steps": 40, "val/accuracy": 0.5})
    elif change == "views":
        config = files.read_json(run / files.CONFIG)
        config["eval"]["views"] = 5
        files.write_json(run / files.CONFIG, config)
        words = "with eval.views=5, need 10 or 1"
    elif change == "row":
        row, words = "bset", "got --row=bset, need one of base, "
    else:
        run = final
        words = "need a file with batch_size, command, "
    check_refused(tabulate, root, [f"--add={run}", f"--row={row}"], words)


@pytest.mark.slow
def test_the_recipe_in_tensorflow(start, tabulate, root, make_npz, tmp_path):
    """Its loss is that of the chapter at first, its record is added to the tables.

    In a process of its own, as it sets the threads of TensorFlow.
    """
    out = tmp_path / "new" / "record.json"
    flags = ["--steps=2", "--threads=1", "--seed=7", f"--out={out}"]
    process = start(
        "cifar10_tensorflow.py", f"--data={make_npz()}", *flags, cwd=tmp_path
    )
    printed, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    record = json.loads(out.read_text())
    assert json.loads(printed[printed.index("{") :]) == record
    assert record["final"]["num_params"] == 1_068_298
    assert record["final"]["test/count"] == 30
    # ln 10, and 0.004 / 2 of the squares of the kernels of local3 and local4.
    assert record["first_loss"] == pytest.approx(4.68, abs=0.05)
    path = root / tables.RESULTS / recording.RUNS
    row = "base on TensorFlow"
    others = [run for run in recorded(root) if run["row"] != row]
    files.write_json(path, {"about": "", "runs": others})
    done = tabulate(f"--add={out}", f"--row={row}")
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = (run for run in recorded(root) if run["row"] == row)
    assert (run["seeds"], run["final"]) == ([7], record["final"])
    assert "| `base.py` in TensorFlow, 2 steps of 128 | noise |" in texts(root)[0]
    # Without --out it writes nothing, which is no bad folder.
    process = start("cifar10_tensorflow.py", "--data=none.npz", cwd=tmp_path)
    _, err = process.communicate()
    assert process.returncode == 2 and "none.npz" in err and "--out" not in err


def test_the_recipe_in_tensorflow_needs_steps(call):
    done = call("cifar10_tensorflow.py", "--steps=0")
    assert done.returncode == 2
    assert "got --steps=0 and --threads=0, need at least 1 step" in done.stderr
