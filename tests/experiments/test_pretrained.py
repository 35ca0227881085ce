"""The networks that come trained are what their cards say."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnjax as cj
from cnnjax.network import PRETRAINED, pretrained_path
from cnnjax.workdir import exports

DATA = Path(
    os.environ.get("CNNJAX_DATA_DIR")
    or Path(__file__).parents[3] / "shared" / "data" / "tensorflow_datasets"
)
NETWORKS = {"cifar10": ("CifarCNN", 0.86), "mnist": ("LeNet5", 0.985)}


def test_they_are_few_and_small():
    found = sorted(PRETRAINED.glob("*.safetensors"))
    assert [path.stem for path in found] == sorted(NETWORKS)
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) < 6e6
    for path in found:
        _, card = exports.read(path)  # which compares its SHA-256
        name, least = NETWORKS[path.stem]
        assert (card["network"], card["dataset"]["name"]) == (name, path.stem)
        stated = [v for k, v in card["accuracy"].items() if k.endswith("y")]
        assert min(stated) > least
        assert card["config"]["model"]["name"] == name
        assert card["manifest"]["versions"]["jax"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_readme_states_what_the_card_does(name, scripts):
    _, card = exports.read(pretrained_path(name))
    (stated,) = (
        value
        for key, value in card["accuracy"].items()
        if key in ("test/accuracy", "test_ema/accuracy")
    )
    row = rf"\| `{name}` \| {card['network']}\b.* \| {stated:.2%} \|\n"
    assert re.search(row, (scripts / "README.md").read_text())


@pytest.mark.real_data
@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_as_accurate_as_stated(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not in {DATA}; set CNNJAX_DATA_DIR")
    test = cj.load_dataset(name, dir=DATA).test
    network = cj.load_network(name)
    found = network.predict(test.images, 500).argmax(1)
    _, card = exports.read(pretrained_path(name))
    (stated,) = (
        value
        for key, value in card["accuracy"].items()
        if key in ("test/correct", "test_ema/correct")
    )
    # Another machine rounds otherwise, and a picture may be between two classes.
    assert abs(int((found == test.labels).sum()) - stated) <= 5
    assert len(found) == 10_000


def test_without_a_run_the_network_for_pictures_answers(call, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cat.jpg")
    done = call("predict.py", "cat.jpg", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()[:2]
    assert first == "no run is named, so the network trained on cifar10 says:"
    assert second.startswith("pretrained: cifar10, dataset: cifar10, step: ")
    printed = json.loads(call("predict.py", "--json", "cat.jpg", cwd=tmp_path).stdout)
    best = printed["pictures"][0]["top"][0]
    assert best["class"] in cj.load_network("cifar10").class_names
    saliency = call("predict.py", "--saliency=why", "cat.jpg", cwd=tmp_path)
    assert (saliency.returncode, saliency.stderr) == (0, "")
    assert len(list((tmp_path / "why").iterdir())) == 1


def test_a_drawn_digit_is_read(call, tmp_path):
    """A one, in ink on paper."""
    paper = np.full((280, 280), 255, np.uint8)
    paper[45:235, 130:152] = 0
    Image.fromarray(paper).save(tmp_path / "digit.png")
    done = call(
        "predict.py",
        "--pretrained=mnist",
        "--invert",
        "--json",
        "digit.png",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["pictures"][0]["top"][0]["class"] == "1"


def test_one_source_at_a_time(call, tmp_path):
    for flags, words in (
        (("--pretrained=mnist", "--workdir=x"), "need at most one of them"),
        (("--pretrained=imagenet",), "or one of cifar10, mnist"),
    ):
        done = call("predict.py", *flags, "cat.jpg", cwd=tmp_path)
        assert done.returncode == 2
        assert words in done.stderr and done.stderr.count("\n") == 1
