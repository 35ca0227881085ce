"""The table as text, as Markdown, in the README and as a picture."""

import io
from pathlib import Path

import pytest
from PIL import Image

from chapter import checks, output
from chapter.checks import Check, contrast

CHECKS = [
    (Check("accuracy", 0.72, 0.74, "%", 3000, "cifar10"), [0.69, 0.70, 0.71]),
    (Check("first loss", 4.5, 4.7), [4.66, 4.67, 4.68]),
    (contrast("with - without"), [0.010, 0.014, 0.012]),
    (Check("parameters", 0.9e6, 1.1e6, exact=True), [1_068_298]),
]


@pytest.fixture
def row() -> dict:
    judged = [
        checks.judge(check, values, steps=3000, dataset="cifar10_jpeg")
        for check, values in CHECKS
    ]
    return {
        "row": "cifar-short",
        "section": "5.3",
        "claim": "about 73%",
        "what": "base.py",
        "budget": "standard",
        "dataset": "cifar10_jpeg",
        "steps": 3000,
        "n": 3,
        "checks": judged,
        "also": [{**judged[0], "what": "beside it"}],
        "note": "A note.",
    }


def test_figures_as_a_reader_sees_them(row: dict) -> None:
    assert [output.figure(check) for check in row["checks"]] == [
        "70.00% ± 1.00 [67.52, 72.48]",
        "4.67 ± 0.01 [4.65, 4.69]",
        "+1.20 points ± 0.20 [+0.70, +1.70]",
        "1,068,298",
    ]
    assert [output.band(check["band"], check["unit"]) for check in row["checks"]] == [
        "72.00 to 74.00%",
        "4.5 to 4.7",
        "> 0",
        "900,000 to 1,100,000",
    ]


def test_the_data_set_is_named_beside_its_figures(row: dict) -> None:
    text = output.markdown([row])
    first = text.splitlines()[2]
    assert "cifar10_jpeg (standard, n = 3, 3,000 steps)" in first
    assert first.rstrip(" |").endswith(checks.OTHER_DATA)
    assert "beside it 70.00%" in text and "A note." in text
    assert all(line.count("|") == 8 for line in text.splitlines()[:6])


def test_the_readme_gets_the_table_and_keeps_the_rest(
    row: dict, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    assert not output.write_readme([row], readme)
    readme.write_text("before\n")
    assert not output.write_readme([row], readme)
    readme.write_text(f"before\n{output.BEGIN}\nold\n{output.END}\nafter\n")
    assert output.write_readme([row], readme)
    assert output.write_readme([row], readme)  # and again
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert text.count("cifar-short") == 2 and "\nold\n" not in text


def test_the_picture_has_a_line_for_each_interval(row: dict) -> None:
    one = Image.open(io.BytesIO(output.chart([row])))
    two = Image.open(io.BytesIO(output.chart([row, row])))
    assert two.height > one.height
    assert len(one.convert("RGB").getcolors(1 << 20)) > 10
