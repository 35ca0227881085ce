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


def run_files(name, seed, rate, loss):
    return RunFiles(
        name=name,
        config={"seed": seed, "optim.learning_rate": rate},
        manifest={},
        records=[{"step": s, "train/cross_entropy": loss + s} for s in (0, 1)],
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
