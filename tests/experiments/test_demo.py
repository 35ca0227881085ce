"""The page in a browser: `pytest -m slow tests/experiments/test_demo.py`.

It needs `pip install 'cnnjax[demo]' playwright`, and Chromium (Debian's package, or
`playwright install chromium`).
"""

import re
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from cnnjax.data.sources.pictures import read_picture
from cnnjax.network import load_network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

# A handwritten 7 of two strokes, in shares of the canvas.
SEVEN = ((0.3, 0.3), (0.7, 0.3), (0.45, 0.75))


@pytest.fixture(scope="module")
def page_of_demo(start, tmp_path_factory):
    """The address of a running demo.py, with the networks that come trained."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("demo")
    process = start("demo.py", f"--port={port}", cwd=folder)
    line = process.stdout.readline()
    assert line.startswith(f"the page is at http://127.0.0.1:{port};"), (
        process.stderr.read()
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        with playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        ) as browser:
            yield browser


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["1280", "390"])
def page(request, browser, page_of_demo):
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme
    )
    page = context.new_page()
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(page_of_demo)
    yield page
    assert not failed
    elsewhere = (page_of_demo, "data:", "blob:")
    assert [url for url in asked if not url.startswith(elsewhere)] == []
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    context.close()


def answered(page):
    """Returns the likeliest class, once it is there."""
    label = page.locator("[data-testid=label-output-value]:visible")
    label.wait_for(timeout=60_000)
    return label.inner_text().strip()


def test_a_picture_is_classified(page, tmp_path):
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(noise).resize((350, 250)).save(path)
    page.set_input_files("#picture input[type=file]", path)
    network = load_network("cifar10")
    shares = network.predict(read_picture(path, 32, "RGB")[None])[0]
    assert answered(page) == network.class_names[shares.argmax()]


def test_a_digit_is_read(page):
    page.get_by_role("tab", name="Draw a digit").click()
    canvas = page.locator("#drawing canvas").first
    page.get_by_label("Erase").wait_for()
    page.wait_for_timeout(1000)  # the brush is taken up
    box = canvas.bounding_box()
    places = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN
    ]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=20)
    page.mouse.up()
    assert answered(page) == "7"


def test_what_is_no_picture_is_said(page, tmp_path):
    (tmp_path / "words.png").write_bytes(b"words")
    page.set_input_files("#picture input[type=file]", tmp_path / "words.png")
    said = page.get_by_test_id("toast-body")
    said.wait_for(timeout=60_000)
    assert re.search(r"\swords\.png cannot be read as a picture", said.inner_text())
