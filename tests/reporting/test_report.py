import dataclasses
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cnnjax.models import MODELS, summary
from cnnjax.reporting import drawings, network_sections, plots, report
from cnnjax.reporting.report import Head, Picture, Section, Table
from cnnjax.reporting.training_sections import (
    RunFiles,
    curves_of_run,
    curves_of_runs,
    differences,
    head_of_run,
    head_of_runs,
)

TIMES = "\N{MULTIPLICATION SIGN}"

# Mathematics that matplotlib would stumble over, and what its font does not have.
NAMES = [r"$\frac$", "<b>", "\N{CJK UNIFIED IDEOGRAPH-6F22}\x00", "a" * 300]


def test_every_name_is_escaped():
    hostile = "<script>alert('1')</script>\ud800\""
    table = Table([hostile], [[hostile]], folded_as=hostile)
    picture = Picture(hostile, b"", hostile)
    section = Section(hostile, [hostile], [picture], [table])
    head = Head(hostile, hostile, [(hostile, hostile, hostile)])
    page = report.render(head, [section]).decode()
    # Title and heading, sentence, figure; link, heading, note, alt, summary, two cells.
    assert page.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;") == 13
    assert "<script" not in page
    assert 'alt="&lt;script&gt;' in page and "\\ud800&quot;" in page


def test_names_are_drawn_as_the_font_can():
    assert plots.text(NAMES[0], 10) == r"$\frac$"
    assert plots.text(NAMES[2] + "x", 10) == "\N{WHITE SQUARE}" * 2 + "x"
    assert plots.text(NAMES[3], 5) == "aaaa\N{HORIZONTAL ELLIPSIS}"


def colours_of(svg):
    """What a browser that takes it for a picture finds in it."""
    tree = ElementTree.fromstring(svg)
    text = svg.decode()
    assert "prefers-color-scheme:dark" in text and plots.INK not in text
    assert "currentColor" in text
    return tree


@pytest.mark.parametrize("repeats", [1, 8])
def test_predictions_of_many_strangely_named_classes(repeats):
    names = NAMES * repeats
    classes = len(names)
    random = np.random.default_rng(0)
    labels = random.integers(0, classes - 1, 200)  # none of the last class
    probabilities = random.random((200, classes), np.float32)
    probabilities[:, 0] = 0  # which is never predicted
    section = network_sections.predictions(probabilities, labels, names, NAMES[0])
    predicted = probabilities.argmax(axis=1)
    right = (predicted == labels).sum()
    assert f"{right} of 200 test pictures" in section.notes[0]
    counts = confusion_matrix(labels, predicted, labels=range(classes))
    known = precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    by_class, confused = section.tables
    assert [row[0] for row in by_class.rows] == names
    for row, *figures in zip(by_class.rows, *known, strict=True):
        assert row[1:] == pytest.approx(figures)
    most = (counts * (1 - np.eye(classes, dtype=int))).max()
    assert confused.rows[0][2] == most
    assert bool(by_class.folded_as) == (classes > plots.MOST_NAMED)
    for picture in section.pictures:
        assert colours_of(picture.svg).get("width") == f"{plots.WIDTH * 72:g}pt"


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_drawn_with_its_shapes(name):
    shape = (24, 24, 3) if name == "CifarCNN" else (28, 28, 1)
    found = summary.layers(MODELS[name](), shape)
    kernel = (5, 5, shape[2], 64)
    section = network_sections.layers(found, {found[0].name: kernel}, shape, name)
    (table,) = section.tables
    first, *_, last = table.rows
    assert first[:2] == [found[0].name, TIMES.join(map(str, kernel))]
    assert last[3:] == [sum(x.num_params for x in found), last[4]]
    assert f"{2 * last[4]:,} arithmetic operations" in section.notes[0]
    assert colours_of(section.pictures[0].svg) is not None


def test_a_network_of_any_depth_and_shape_is_drawn():
    deep = [(f"block_{i}/Conv_0", (224, 224, 4096)) for i in range(200)]
    one, many = (drawings.network(deep[:n], title="deep") for n in (1, 200))
    assert len(one) < len(many)
    assert many == drawings.network(deep[: drawings.MOST_BOXES], title="deep")
    colours_of(drawings.network([("tokens", (196, 64)), ("head", (1,))], title="other"))


def test_a_layer_in_a_layer_has_a_file_name():
    maps = {f"Block_{i}/Conv_0": np.zeros((4, 4, 2), np.float32) for i in range(20)}
    image = np.zeros((8, 8, 3), np.uint8)
    section = network_sections.insides(np.zeros((3, 3, 3, 2)), image, maps)
    names = [picture.name for picture in section.pictures]
    assert names[2:4] == ["maps_Block_0_Conv_0", "maps_Block_1_Conv_0"]
    assert len(names) == 2 + network_sections.MOST_MAPS
    assert f"the first {network_sections.MOST_MAPS}" in section.notes[0]


def run_files(name, seed, rate, loss, num_seeds=1, data="", steps=(0, 1)):
    return RunFiles(
        name=name,
        config={
            "seed": seed,
            "num_seeds": num_seeds,
            "optim.learning_rate": rate,
            "model.name": "CifarCNN",
            "train.steps": 3000,
            "train.batch_size": 128,
        },
        manifest={"data.fingerprint": data} if data else {},
        records=[{"step": s, "train/cross_entropy": loss + s} for s in steps],
        final={"test/accuracy": [0.5, 0.7], "test/accuracy/mean": 0.6}
        | {"test/accuracy/std": 0.14},
        dataset="shapes",
    )


def test_runs_that_differ_in_their_seed_are_one_line():
    runs = [run_files("a", 0, 0.1, 1.0), run_files("b", 1, 0.1, 3.0)]
    runs.append(run_files("c", 1, 0.2, 5.0))
    (picture,) = curves_of_runs(runs).pictures
    ends = "a (2 seeds) ends at 3; c ends at 6"
    assert picture.alt == f"cross entropy over the steps: {ends}"
    (table,) = differences(runs).tables
    assert table.rows == [
        ["test accuracy", *["60.00% \N{PLUS-MINUS SIGN} 14.00"] * 3],
        ["config: seed", "0", "1", "1"],
        ["config: optim.learning_rate", "0.1", "0.1", "0.2"],
    ]


@pytest.mark.parametrize(
    ("manifests", "row"),
    [
        (({}, {"environment.XLA": "1"}), []),
        (({}, {"devices.count": 2}), ["manifest: devices.count", "\N{EM DASH}", "2"]),
        (
            ({"environment.XLA": "0"}, {"environment.XLA": "1"}),
            ["manifest: environment.XLA", "0", "1"],
        ),
    ],
    ids=["not recorded", "missing", "other"],
)
def test_what_an_older_version_did_not_record_is_no_difference(manifests, row):
    runs = [
        dataclasses.replace(run_files("a", 0, 0.1, 1.0), manifest=manifest, final={})
        for manifest in manifests
    ]
    assert [table.rows for table in differences(runs).tables] == [[row]] * bool(row)


def ends(*runs):
    (picture,) = curves_of_runs(runs).pictures
    return picture.alt.removeprefix("cross entropy over the steps: ")


@pytest.mark.parametrize(
    "other",
    [
        run_files("b", 1, 0.1, 3.0, data="other pictures"),
        run_files("b", 0, 0.1, 3.0),  # the same seed, on another machine perhaps
        run_files("b", 1, 0.1, 3.0, num_seeds=2),
    ],
    ids=["data", "seed", "num_seeds"],
)
def test_runs_that_are_not_seeds_of_each_other_are_not_averaged(other):
    first = run_files("a", 0, 0.1, 1.0, other.config["num_seeds"])
    assert ends(first, other) == "a ends at 2; b ends at 4"


def test_seeds_without_a_common_step_have_no_line():
    one, two = run_files("a", 0, 0.1, 1.0), run_files("b", 1, 0.1, 3.0, steps=(2, 3))
    assert not curves_of_runs([one, two]).pictures
    assert ends(one, two, run_files("c", 0, 0.2, 5.0)) == "c ends at 6"


def ended(name="a", seed=0, correct=7252, **more):
    final = {
        "dataset": "shapes",
        "num_params": 1068298,
        "test/accuracy": correct / 10000,
        "test/correct": correct,
        "test/count": 10000,
        "train_seconds": 98.31,
        "perf/examples_per_sec": 3905.97,
    }
    run = run_files(name, seed, 0.1, 1.0)
    return dataclasses.replace(run, final=final | more)


def test_a_report_begins_with_a_sentence_and_four_numbers():
    head = head_of_run(ended())
    assert head.lead == (
        "CifarCNN with 1,068,298 parameters, trained on shapes for 3,000 steps of 128"
        " pictures in 1 min 38 s (seed 0), predicts 72.52% of 10,000 test pictures"
        " right (95% interval 71.64% to 73.39%)."
    )
    numbers = {what: number for what, number, _ in head.figures}
    assert numbers == {
        "accuracy": "72.52%",
        "steps": "3,000",
        "training time": "1 min 38 s",
        "parameters": "1,068,298",
    }
    unfinished = head_of_run(dataclasses.replace(ended(), final={}))
    assert "has logged step 1 of 3,000" in unfinished.lead


def test_a_comparison_begins_with_the_accuracies():
    other = dataclasses.replace(ended("c", 0, 9000), dataset="digits")
    runs = [ended(), ended("b", 1, 7052), other]
    assert [figure[:2] for figure in head_of_runs(runs).figures] == [
        ("a (2 seeds)", "71.52% \N{PLUS-MINUS SIGN} 1.41"),
        ("c", "90.00%"),
    ]


def with_records(*records):
    return dataclasses.replace(ended(), records=records)


def test_a_single_evaluation_is_a_number():
    run = with_records({"step": 300, "eval/accuracy": 0.4665, "eval/split": "test"})
    section = curves_of_run(run)
    assert not section.pictures
    assert section.notes[1:] == ["test, after 300 steps: 46.65%."]
    (picture,) = curves_of_runs([run, run]).pictures
    assert picture.name == "compared_evaluation_accuracy"
    assert picture.alt.startswith("accuracy in the end, shapes: a 72.52%")
    held_out = {"step": 300, "eval/accuracy": 0.5, "eval/split": "validation"}
    other = dataclasses.replace(with_records(held_out), name="b")
    assert not curves_of_runs([run, run]).notes[1:]
    said = "Evaluated during training: a on test, b on validation."
    assert curves_of_runs([run, other]).notes[1:] == [said]
    searched = {"val/accuracy": 0.5, "val/count": 100}
    (figure,) = head_of_runs([dataclasses.replace(other, final=searched)]).figures
    assert figure[2].endswith(", of validation pictures")


def test_curves_that_lie_on_each_other_are_one():
    keys = ("train/loss", "train/cross_entropy")
    lines = [{"step": s, **dict.fromkeys(keys, 2.0 - s)} for s in (0, 1)]
    (picture,) = curves_of_run(with_records(*lines)).pictures
    assert picture.alt == "loss over the steps: total = cross-entropy ends at 1"
    lines[1]["train/loss"] = 1.5
    (picture,) = curves_of_run(with_records(*lines)).pictures
    assert picture.alt.endswith("total ends at 1.5; cross-entropy ends at 1")
