"""The scripts that use a run: predict.py and export.py, and evaluate.py beside them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax import config as configs
from cnnjax.data.dataset import Split
from cnnjax.data.sources import tfds
from cnnjax.evaluation import Evaluator
from cnnjax.network import load_network
from cnnjax.parallel import Partitioner, make_mesh
from cnnjax.run import recipe_of
from cnnjax.runtime.clocks import Clocks
from cnnjax.workdir import exports, files

FULL_DISK = Path("/dev/full")


@pytest.fixture(scope="module")
def photos(colour_run, tmp_path_factory):
    """The colour run's test pictures as PNG, in order."""
    folder = tmp_path_factory.mktemp("photos")
    file = json.loads((colour_run[0] / "config.json").read_text())["data"]["file"]
    with np.load(file) as data:
        for i, image in enumerate(data["x_test"]):
            Image.fromarray(image).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def grey_run(call, make_npz, tmp_path_factory):
    """A run of the MLP on grey noise."""
    workdir = tmp_path_factory.mktemp("runs") / "grey"
    done = call(
        "mnist.py",
        "--config=configs/mlp.py",
        "--config.data.source=npz",
        f"--config.data.file={make_npz((28, 28))}",
        "--config.data.pipeline=device",
        "--config.train.steps=2",
        "--config.train.batch_size=16",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr
    return workdir


def predicted(call, *arguments):
    """Returns what predict.py prints as JSON, where nothing is wrong."""
    done = call("predict.py", "--json", "--top_k=10", *map(str, arguments))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def probabilities(printed):
    """Returns file -> class -> probability."""
    return {
        picture["file"]: {row["class"]: row["probability"] for row in picture["top"]}
        for picture in printed["pictures"]
    }


def test_the_class_is_that_of_evaluation(call, colour_run, photos, snapshot, tmp_path):
    """evaluate.py, given what predict.py said as the labels, finds them all right."""
    workdir = colour_run[0]
    before = snapshot(workdir)
    printed = predicted(call, f"--workdir={workdir}", photos)
    assert printed["dataset"] == "noise"
    assert (printed["step"], printed["weights"]) == (40, "ema_params")
    tops = [picture["top"] for picture in printed["pictures"]]
    for top in tops:
        shares = [row["probability"] for row in top]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    labels = np.array([int(top[0]["class"]) for top in tops])
    assert len(set(labels)) > 1
    file = json.loads((workdir / "config.json").read_text())["data"]["file"]
    with np.load(file) as data:
        np.savez(tmp_path / "said.npz", **{**data, "y_test": labels})
    flag = f"--config.data.file={tmp_path / 'said.npz'}"
    done = call("evaluate.py", f"--workdir={workdir}", flag)
    assert "(30/30) on said [test_ema]" in done.stdout
    assert snapshot(workdir) == before


def test_an_export_says_the_same(call, colour_run, photos, tmp_path):
    to = tmp_path / "noise.stablehlo"
    done = call("export.py", f"--workdir={colour_run[0]}", f"--to={to}")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(tmp_path.iterdir()) == [to, exports.card_path(to)]
    card = json.loads(exports.card_path(to).read_text())
    final = json.loads((colour_run[0] / "final_metrics.json").read_text())
    assert card["classes"] == [str(i) for i in range(10)]
    assert card["input"]["shape"] == ["batch", 32, 32, 3]
    assert card["platforms"] == ["cpu", "cuda"]
    assert card["versions"]["training"]["jax"]
    assert card["preprocessing"] == {"crop": 24, "normalise": "per_image"}
    assert (card["weights"], card["step"]) == ("ema_params", 40)
    assert card["dataset"]["name"] == "noise"
    assert card["accuracy"] == {k: v for k, v in final.items() if "_ema/" in k}
    from_run = probabilities(predicted(call, f"--workdir={colour_run[0]}", photos))
    from_export = probabilities(predicted(call, f"--export={to}", photos))
    assert from_run.keys() == from_export.keys()
    for file, shares in from_run.items():
        assert from_export[file] == pytest.approx(shares, abs=1e-5)
    assert card["top_k"] == 1
    for of_a_run in ("--saliency=x", "--seed_index=0"):
        done = call("predict.py", f"--export={to}", of_a_run, str(photos))
        assert_refused(done, "need a run or exported weights for them")


def test_exported_weights_say_the_same(call, colour_run, photos, tmp_path):
    to = tmp_path / "noise.safetensors"
    done = call("export.py", f"--workdir={colour_run[0]}", f"--to={to}")
    assert (done.returncode, done.stderr) == (0, "")
    from_run = predicted(call, f"--workdir={colour_run[0]}", photos)
    why = f"--saliency={tmp_path / 'why'}"
    from_weights = predicted(call, f"--export={to}", why, photos)
    assert probabilities(from_weights) == probabilities(from_run)
    for key in ("dataset", "step", "weights"):
        assert from_weights[key] == from_run[key]
    assert len(list((tmp_path / "why").iterdir())) == len(from_run["pictures"])


def test_bad_pictures_are_named_and_the_rest_predicted(call, colour_run, tmp_path):
    good, noise = tmp_path / "good[1].png", np.random.default_rng(0)
    colours = noise.integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(colours).save(good)
    bad = {
        "words.png": b"words",
        "cut.jpg": None,
        "one.png": None,
        "large.png": None,
        "empty": None,
        "missing.png": None,
        "x" * 300: None,
    }
    (tmp_path / "words.png").write_bytes(b"words")
    Image.fromarray(colours).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "large.png")
    (tmp_path / "empty").mkdir()
    named = [str(tmp_path / name) for name in bad]
    flag = f"--workdir={colour_run[0]}"
    done = call("predict.py", flag, *named[:3], str(good), *named[3:], "--top_k", "2")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == len(bad) + 1
    for name, line in zip(named, lines, strict=False):
        assert line.startswith(f"error: {name} ")
    assert re.match(r"error: 7 of what was named .* 1 pictures were", lines[-1])
    assert "1x1 pixels" in lines[2] and "decompression bomb" in lines[3]
    assert re.match(r"workdir: .*, dataset: noise, step: 40, weights: ema", done.stdout)
    assert "good[1].png" in "".join(done.stdout.split())
    assert len(re.findall(r" 0\.\d{4}\s*$", done.stdout, re.MULTILINE)) == 2


def test_a_folder_may_hold_what_is_no_picture(call, colour_run, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "no_suffix", "PNG")
    for i in range(4):
        (folder / f"notes{i}.txt").write_text("words")
    (folder / "Thumbs.db").write_bytes(bytes(100))
    flag = f"--workdir={colour_run[0]}"
    done = call("predict.py", flag, "--json", str(folder))
    assert done.returncode == 0
    first = ", ".join(str(folder / f"notes{i}.txt") for i in range(3))
    said = f"passed over 4 files that are no pictures: {first}, ...\n"
    assert done.stderr == f"warning: {said}"
    (picture,) = json.loads(done.stdout)["pictures"]
    assert picture["file"] == str(folder / "no_suffix")
    # Named itself, or with a picture's suffix, it must be a picture.
    (folder / "cut.JPG").write_text("words")
    notes = str(folder / "notes0.txt")
    for named, bad in ((str(folder), folder / "cut.JPG"), (notes, notes)):
        done = call("predict.py", flag, named)
        assert done.returncode == 2 and f"error: {bad} cannot be read" in done.stderr
    (folder / "no_suffix").unlink()
    (folder / "cut.JPG").unlink()
    done = call("predict.py", flag, str(folder))
    assert done.returncode == 2 and "got folders without a picture" in done.stderr


def test_dark_digits_are_inverted_when_asked(call, grey_run, tmp_path):
    """And of sixteen bits, or in colour, a grey picture is the same picture."""
    digit = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    deep, colour = tmp_path / "deep.png", tmp_path / "colour.png"
    Image.fromarray(digit).save(light)
    Image.fromarray(255 - digit).save(dark)
    Image.fromarray(digit.astype(np.uint16) * 257).save(deep)
    Image.fromarray(digit).convert("RGB").save(colour)
    flag = f"--workdir={grey_run}"
    shares = probabilities(predicted(call, flag, light, dark, deep, colour))
    inverted = probabilities(predicted(call, flag, "--invert", dark))
    assert inverted[str(dark)] == pytest.approx(shares[str(light)], abs=1e-5)
    assert shares[str(deep)] == shares[str(light)] == shares[str(colour)]
    assert shares[str(dark)] != shares[str(light)]


def test_saliency_lies_in_the_crop(call, colour_run, photos, tmp_path):
    folder = tmp_path / "saliency"
    flags = (f"--workdir={colour_run[0]}", f"--saliency={folder}")
    long = shutil.copy(photos / "05.png", tmp_path / ("\N{SNOWMAN}" * 83 + ".png"))
    printed = predicted(call, *flags, photos / "07.png", photos / "03.png", long)
    paths = [picture["saliency"] for picture in printed["pictures"]]
    assert paths[:2] == [str(folder / "0001-07.png"), str(folder / "0002-03.png")]
    assert Path(paths[2]).exists()  # of a name with 253 bytes
    with Image.open(paths[0]) as both, Image.open(photos / "07.png") as picture:
        assert both.size == (512, 256)
        halves = np.asarray(both)[::8, ::8]
        np.testing.assert_array_equal(halves[:, :32], np.asarray(picture))
    heat = halves[:, 32:, 0].copy()
    assert heat.max() == 255
    heat[4:28, 4:28] = 0
    assert not heat.any()


def assert_refused(done, words):
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{words}.*\n", done.stderr), done.stderr


def test_usage_is_refused_in_one_line(call, colour_run, photos, tmp_path):
    run, picture = f"--workdir={colour_run[0]}", str(photos / "00.png")
    (tmp_path / "words").write_text("words")
    (tmp_path / "words.json").write_text("words")
    cases = [
        (("predict.py", run, picture, "--export=x"), "need at most one of them"),
        (("predict.py", run), "got 0 pictures"),
        (("predict.py", run, picture, "--top_k=0"), "--top_k=0, need at least one"),
        (("predict.py", run, picture, "--nonsense"), "nonsense"),
        (("predict.py", run, picture, "--invert"), "pictures in colour"),
        (("predict.py", f"--workdir={tmp_path}", picture), "config.json"),
        (("predict.py", f"--export={tmp_path}/words", picture), "no card of an export"),
        (("predict.py", f"--export={tmp_path}/none", picture), "none cannot be read"),
        (
            ("predict.py", run, picture, f"--saliency={tmp_path}/words/x"),
            "need a folder that can be written",
        ),
        (("export.py", run, f"--to={tmp_path}/{'x' * 255}"), "x, need a folder that"),
        (("export.py", run), "and the file to write"),
        (("export.py", run, f"--to={tmp_path}"), "need a file in a folder that exists"),
        (("export.py", run, f"--to={tmp_path}/x/y"), "in a folder that exists"),
        (("export.py", run, "words", "--to=x"), "got 'words', need flags only"),
    ]
    for command, words in cases:
        assert_refused(call(*command), words)


def test_a_run_that_cannot_be_used_is_refused(call, grey_run, photos, tmp_path):
    workdir = shutil.copytree(grey_run, tmp_path / "run")
    command = ("predict.py", f"--workdir={workdir}", str(photos / "00.png"))
    path = workdir / "manifest.json"
    manifest = json.loads(path.read_text())
    for shape, words in (
        ([28, 20, 1], "28x20x1, need square ones, grey or RGB"),
        ([28, 28, 4], "28x28x4, need square ones, grey or RGB"),
        (None, "image_shape=None .* train the run with this version"),
    ):
        manifest["data"]["image_shape"] = shape
        path.write_text(json.dumps(manifest))
        assert_refused(call(*command), words)
    shutil.copy(grey_run / "manifest.json", path)
    shutil.rmtree(workdir / "checkpoints")
    assert_refused(call(*command), "has no checkpoint")


def test_help_does_not_wait_for_jax(scripts, environment):
    program = """
import contextlib, os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))  # as where a script is run
for script in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        sys.argv = [script, "--help"]
        print("help:")
        runpy.run_path(script, run_name="__main__")
slow = {"jax", "flax", "optax", "orbax", "tensorflow", "tensorflow_datasets"}
print(sorted(slow & set(sys.modules)))
"""
    files = sorted(map(str, scripts.glob("*.py")))
    done = subprocess.run(
        [sys.executable, "-c", program, *files],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = done.stdout.split("help:\n")[1:]
    for file, page in zip(files, pages, strict=True):
        assert f"python experiments/{Path(file).name}" in page
        assert re.search(r"^--\w+=[A-Z]", page, re.MULTILINE)
    assert done.stdout.endswith("[]\n")


@pytest.mark.skipif(not FULL_DISK.exists(), reason="needs /dev/full")
def test_what_cannot_be_printed_is_one_line(scripts, environment):
    # Printed into a buffer, as into any file or pipe: it fails when that is flushed.
    buffered = {k: v for k, v in environment.items() if k != "PYTHONUNBUFFERED"}
    with FULL_DISK.open("w") as full:
        done = subprocess.run(
            [sys.executable, str(scripts / "predict.py"), "--help"],
            env=buffered,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*No space left on device\n", done.stderr)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(1800)
def test_real_pictures_from_files(call, tmp_path):
    """As PNG each is what evaluation sees, and nearly all as enlarged JPEG."""
    root = os.environ.get("CNNJAX_DATA_DIR") or (
        Path(__file__).parents[3] / "shared" / "data" / "tensorflow_datasets"
    )
    if not (Path(root) / "cifar10").is_dir():
        pytest.skip(f"cifar10 is not in {root}; set CNNJAX_DATA_DIR")
    workdir = tmp_path / "run"
    done = call(
        "cifar10.py",
        "--config.data.name=cifar10",
        f"--config.data.dir={root}",
        "--config.data.pipeline=device",
        "--config.train.steps=300",
        "--config.optim.ema_decay=0.99",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr
    config = configs.from_stored(files.read_json(workdir / files.CONFIG))
    loaded = load_network(workdir)
    evaluator = Evaluator(
        recipe_of(config, num_classes=10),
        Partitioner(make_mesh(1)),
        batch_size=500,
        clocks=Clocks(),
    )
    images = tfds.load("cifar10", str(root), False).test.images[:1000]
    png, jpeg = tmp_path / "png", tmp_path / "jpeg"
    png.mkdir()
    jpeg.mkdir()
    for i, image in enumerate(map(Image.fromarray, images)):
        image.save(png / f"{i:04}.png")
        large = image.resize((128, 128), Image.Resampling.LANCZOS)
        large.save(jpeg / f"{i:04}.jpg", quality=95)
    for folder, least in ((png, 1000), (jpeg, 970)):
        printed = predicted(call, f"--workdir={workdir}", folder)
        said = [picture["top"][0]["class"] for picture in printed["pictures"]]
        labels = np.array([loaded.class_names.index(name) for name in said], np.int32)
        assert evaluator(loaded.variables, Split(images, labels)).correct >= least
