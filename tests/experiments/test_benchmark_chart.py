"""The picture of the benchmark."""

from PIL import Image

from speed import output


def test_the_picture_says_what_both_its_colours_are(tmp_path):
    cases = {"CifarCNN training, cnnjax": {"images_per_second": 3082.0}}
    output.chart({"peers": {"cases": cases}}, tmp_path / "benchmark.png")
    picture = Image.open(tmp_path / "benchmark.png").convert("RGB")
    count = {colour: n for n, colour in picture.getcolors(1 << 24)}
    ours, theirs = (
        count.get(tuple(bytes.fromhex(colour[1:])), 0)
        for colour in (output.OURS, output.THEIRS)
    )
    # No bar is grey here, so that what is grey explains the colour.
    assert ours > theirs > 50
