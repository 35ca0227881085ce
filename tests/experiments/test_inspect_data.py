import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def inspect(call):
    """Returns (*flags) -> what the script prints, which it must do without error."""

    def inspect(*flags):
        done = call("inspect_data.py", *flags)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return inspect


def test_a_machine_without_data_is_told_where_to_get_them(inspect):
    out = inspect()
    assert "shapes" in out and "digits" in out and "prepared" not in out
    assert re.search(
        r"missing: cifar10, from https://www\.cs\.toronto\.edu/~kriz: put"
        r" cifar-10-binary\.tar\.gz \(170052171 bytes, SHA-256 [0-9a-f]{64}\) into"
        r" /.*/home\d+/tensorflow_datasets/downloads/manual/\n",
        out,
    )
    assert "missing: mnist" in out


def test_a_folder_that_may_not_be_searched_is_passed_over(inspect, monkeypatch):
    from printing import present

    def refuse(root):
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setattr(present, "find", refuse)
    out = inspect()
    assert re.search(r"passed over: /.*/tensorflow_datasets \(Permission denied\)", out)
    assert "shapes" in out


def test_a_set_is_counted_and_shown(inspect, make_npz, tmp_path):
    images = np.full((4, 32, 32, 3), [0, 100, 200], np.uint8)
    images[1] += 1
    file = make_npz(x_test=images, y_test=[0, 1, 2, 2])
    picture = tmp_path / "grid.png"
    out = inspect(f"--dir={file}", f"--grid={picture}")
    assert "noise" in out
    assert re.search(r"all\W+60\W+4\W", out) and re.search(r"\W2\W+6\W+2\W", out)
    for channel, mean in enumerate((0.25, 100.25, 200.25)):
        # Of three pixels at v and one at v + 1: the deviation is sqrt(3) / 4.
        assert re.search(rf"\W{channel}\W.* {mean} ± 0\.43", out)
    assert "0 within train, 2 within test, 0 of test are in train" in out
    assert re.search(r"fingerprint: [0-9a-f]{64}\n", out)
    with Image.open(picture) as shown:
        # Twice as large, with a column for the names of the classes.
        side, pixels = 2 * (10 * 33 - 1), np.asarray(shown)
        margin = shown.width - side
        assert (shown.height, shown.mode) == (side, "RGB") and 0 < margin < 64
        for label in range(10):
            name = pixels[66 * label : 66 * label + 64, :margin]
            assert (name[0] == 255).all() and name.min() < 64
        with np.load(file) as data:
            first = data["x_train"][data["y_train"] == 3][0]
        np.testing.assert_array_equal(pixels[3 * 66 :][:64:2, margin:][:, :64:2], first)


def test_a_class_is_called_what_its_folder_is(start, tmp_path):
    # Neither styles nor emoji, and names that are no text.
    names = [b"[cat]", b"[bold]x", b":smile:", b"caf\xe9"]
    for name in names:
        folder = os.fsencode(tmp_path / "[red]pictures" / "train") + b"/" + name
        os.makedirs(folder)
        for i in range(6):
            image = Image.new("RGB", (32, 32), (len(name), 40 * i, 0))
            image.save(os.fsdecode(folder + f"/{i}.png".encode()))
    done = start("inspect_data.py", f"--dir={tmp_path}/[red]pictures", cwd=tmp_path)
    out, err = done.communicate()
    assert (done.returncode, err) == (0, "")
    for name in ("[red]pictures", "[cat]", "[bold]x", ":smile:", r"caf\udce9"):
        assert name in out


def test_embedded_sets_have_no_picture_twice(inspect):
    out = inspect("--name=digits")
    assert re.search(r"all\W+1,501\W+296\W", out)
    assert "0 within train, 0 within test, 0 of test are in train" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--name=cifar10", "cifar10 is not prepared in .*; put cifar-10-binary"),
        ("--name=cifar11", "TFDS knows no set of that name"),
        ("--dir=/nowhere", "/nowhere is not a folder"),
        ("--dir=/nowhere.npz", "/nowhere.npz does not exist"),
        ("--dir=/nowhere.NPZ", "/nowhere.NPZ does not exist"),
        ("--grid=a.png", "--grid without a set"),
        ("--name=digits --grid=/nowhere/a.png", "need a file that can be written"),
        ("--name=digits --grid=~/no/a.png", r"--grid=/.*/home\d+/no/a\.png, need"),
        ("--nonsense=1", "nonsense"),
        ("nonsense", "need flags only"),
    ],
)
def test_bad_input_is_one_line(call, flags, words):
    done = call("inspect_data.py", *flags.split())
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{words}.*\n", done.stderr), done.stderr


def test_help_is_quick(environment, scripts):
    command = [sys.executable, str(scripts / "inspect_data.py"), "--help"]
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 2
    assert all(flag in done.stdout for flag in ("--name=", "--dir=", "--grid="))
