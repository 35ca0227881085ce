import io

import numpy as np
import pytest
from PIL import Image

from cnnjax.reporting import network_sections, plots, report
from cnnjax.reporting.report import Picture, Section, Table
from cnnjax.reporting.training_sections import RunFiles, curves_of_runs, differences

# Mathematics that matplotlib would stumble over, and what its font does not have.
NAMES = [r"$\frac$", "<b>", "\N{CJK UNIFIED IDEOGRAPH-6F22}\x00", "a" * 300]


def test_every_name_is_escaped():
    hostile = "<script>alert('1')</script>\ud800\""
    table = Table([hostile], [[hostile]], folded_as=hostile)
    picture = Picture(hostile, b"", hostile)
    section = Section(hostile, [hostile], [picture], [table])
    page = report.render(hostile, [section]).decode()
    assert page.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;") == 8
    assert "<script" not in page
    assert 'alt="&lt;script&gt;' in page and "\\ud800&quot;" in page


def test_names_are_drawn_as_the_font_can():
    assert plots.text(NAMES[0], 10) == r"$\frac$"
    assert plots.text(NAMES[2] + "x", 10) == "\N{WHITE SQUARE}" * 2 + "x"
    assert plots.text(NAMES[3], 5) == "aaaa\N{HORIZONTAL ELLIPSIS}"


@pytest.mark.parametrize("repeats", [1, 8])
def test_predictions_of_many_strangely_named_classes(repeats):
    names = NAMES * repeats
    classes = len(names)
    probabilities = np.eye(classes, dtype=np.float32)[np.arange(classes) // 2]
    section = network_sections.predictions(
        probabilities, np.arange(classes), names, NAMES[0]
    )
    assert f"{1} of {classes} test pictures" in section.notes[0]
    # Class 0 is predicted for pictures of 0 and 1; the second half never is.
    assert section.tables[0].rows[0] == [names[0], 0.5, 1.0, pytest.approx(2 / 3), 1]
    assert section.tables[0].rows[-1] == [names[-1], 0.0, 0.0, 0.0, 1]
    for picture in section.pictures:
        assert Image.open(io.BytesIO(picture.png)).width == plots.WIDTH * plots.DPI


def run_files(name, seed, rate, loss, num_seeds=1, data="", steps=(0, 1)):
    return RunFiles(
        name=name,
        config={"seed": seed, "num_seeds": num_seeds, "optim.learning_rate": rate},
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
    results, config = differences(runs).tables
    assert results.rows == [["test/accuracy", *["0.6 \N{PLUS-MINUS SIGN} 0.14"] * 3]]
    assert config.rows == [
        ["config: seed", "0", "1", "1"],
        ["config: optim.learning_rate", "0.1", "0.1", "0.2"],
    ]


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
