"""The table as text, as Markdown, in the README and as a picture."""

import io
import re
from pathlib import Path

import pytest
from matplotlib.text import Text
from PIL import Image

from chapter import checks, output
from chapter.checks import Check, contrast
from cnnjax.reporting import plots

CHECKS = [
    (Check("accuracy", 0.72, 0.74, "%", 3000, "cifar10"), [0.69, 0.70, 0.71]),
    (Check("first loss", 4.5, 4.7), [4.66, 4.67, 4.68]),
    (contrast("with - without"), [0.010, 0.014, 0.012]),
    (Check("parameters", 0.9e6, 1.1e6, exact=True), [1_068_298]),
]


@pytest.fixture
def row() -> dict:
    judged = [
        checks.judge(check, values, steps=3000, dataset="cifar100")
        for check, values in CHECKS
    ]
    return {
        "row": "cifar-short",
        "section": "5.3",
        "claim": "about 73%",
        "what": "base.py",
        "budget": "standard",
        "dataset": "cifar100",
        "steps": 3000,
        "n": 3,
        "looks": [3],
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
    assert "cifar100 (standard, n = 3, 3,000 steps)" in first
    assert first.rstrip(" |").endswith("another data set; cifar10 would do")
    assert "| beside it | 70.00%" in text and "A note." in text
    assert all(line.count("|") == 8 for line in text.splitlines()[:6])


@pytest.mark.parametrize("columns", [80, 160])
def test_the_table_fits_the_terminal(
    row: dict, columns: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(output.Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")  # rich takes a dumb one to have 80 columns
    output.print_table([row])
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, printed.splitlines())) <= columns
    assert ("about 73%" in printed) == (columns == 160)
    for words in ("cifar-short", "cifar100", "70.00%", "1,068,298", "first loss"):
        assert words in printed


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
    assert text.count("cifar-short") == 3 and "\nold\n" not in text


@pytest.mark.parametrize(
    ("verdict", "needs", "text"),
    [
        (checks.HOLDS, {}, "holds"),
        (
            checks.UNTOLD,
            {"seeds": 57},
            "cannot be told at n = 3; about 57 seeds would tell",
        ),
        (
            checks.UNTOLD,
            {"seeds": 1234},
            "cannot be told at n = 3; about 1,300 seeds would tell",
        ),
        (
            checks.UNTOLD,
            {"seeds": None},
            "cannot be told at n = 3; the mean lies at an end of the band",
        ),
        (
            checks.TOO_SHORT,
            {"steps": 100_000},
            "cannot be told in so few steps; 100,000 would do",
        ),
    ],
)
def test_a_verdict_says_what_it_would_take(
    row: dict, verdict: str, needs: dict, text: str
) -> None:
    check = {**row["checks"][0], "verdict": verdict, "needs": needs}
    assert output.verdict(check, row) == text
    if "seeds" in needs:
        # The rows of version 0.1.0 do not say.
        del check["needs"]
        assert output.verdict(check, row) == "cannot be told at n = 3"
        timed = output.verdict({**check, "needs": needs}, {**row, "steps": 0})
        assert timed == text.replace("seeds", "rounds")


def test_another_n_than_the_claim_s_is_named(row: dict) -> None:
    row["also"].append({**row["also"][0], "values": [0.6, 0.7]})
    assert output.markdown([row]).count("(n = 2)") == 1
    row["also"][-1]["values"] = [0.6]  # one value is no sample
    assert "(n = " not in output.markdown([row])


def far_away(row: dict) -> list[dict]:
    """Rows with every verdict, intervals of every kind, and long labels."""
    intervals = [
        ("a narrow band, far below", [0.72, 0.74], [0.1, 0.3, 0.5]),
        ("a narrow band, far above", [0.72, 0.74], [40.0, 40.1, 40.3]),
        ("everywhere", [0.99, 0.991], [-300.0, 2.0, 400.0]),
        ("points " * 12, [0.0, None], [0.01, -0.02, 0.012]),
        ("w" * 70, [0.0, None], [-4.0, -5.0, -6.0]),
        ("in the band", [0.0, 1.0], [0.4, 0.5, 0.6]),
    ]
    judged = [
        {
            **checks.described(what, "points", values),
            "band": band,
            "verdict": verdict,
        }
        for (what, band, values), verdict in zip(intervals, output.COLOURS, strict=True)
    ]
    return [{**row, "checks": judged}, row]


def test_nothing_in_the_picture_is_cut_off(row: dict) -> None:
    with plots.figure() as figure:
        output.draw(figure, far_away(row))
        figure.canvas.draw()
        (axes,) = figure.axes
        inside, page = axes.get_window_extent(), figure.bbox
        drawn = [line for line in axes.lines if len(line.get_xdata()) == 2]
        assert len(drawn) == 1 + 6 + 3  # the band's begin, and every interval
        for line in axes.lines:
            for x, y in axes.transData.transform(line.get_xydata()):
                assert line in axes.lines[:1] or inside.contains(x, y), (
                    line.get_xydata()
                )
        texts = [
            text
            for text in figure.findobj(Text)
            if text.get_text() and text.get_visible()
        ]
        shown = " ".join(" ".join(text.get_text().split()) for text in texts)
        for words in (
            "points points points",
            "+4013.33 points, n = 3",
            *output.COLOURS,
        ):
            assert words in shown
        assert "\N{HORIZONTAL ELLIPSIS}" not in shown
        for text in texts:
            box = text.get_window_extent()
            assert page.x0 <= box.x0 and box.x1 <= page.x1, text
            assert page.y0 <= box.y0 and box.y1 <= page.y1, text
        boxes = [text.get_window_extent() for text in texts]
        for i, box in enumerate(boxes):
            over = [texts[j] for j in range(i) if box.overlaps(boxes[j])]
            assert not over, (texts[i], over)


@pytest.mark.parametrize(
    ("band", "at"),
    [((0.9e6, 1.1e6), 0.34149), ((1_068_298, 1_068_298), 0), ((0, None), 0.5)],
    ids=["band", "number", "open"],
)
def test_a_counted_quantity_is_a_dot(row: dict, band: tuple, at: float) -> None:
    counted = {**row["checks"][-1], "band": band}
    with plots.figure() as figure:
        output.draw(figure, [{**row, "checks": [counted]}])
        (axes,) = figure.axes
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [list(dot.get_xdata()) for dot in dots] == [[pytest.approx(at)]]
        assert "1,068,298, counted" in [text.get_text() for text in axes.texts]
        (key,) = figure.legends
        assert [text.get_text() for text in key.get_texts()] == [counted["verdict"]]


def test_the_picture_has_a_line_for_each_interval(row: dict) -> None:
    one = Image.open(io.BytesIO(output.chart([row])))
    two = Image.open(io.BytesIO(output.chart([row, row])))
    assert two.height > one.height
    assert len(one.convert("RGB").getcolors(1 << 20)) > 10
