import hashlib

import numpy as np
import pytest
from PIL import Image

from cnnjax.data.sources import folder
from cnnjax.errors import InputError

COLOURS = {"ant": (200, 0, 0), "bee": (0, 0, 200)}


def write(path, colour=(9, 9, 9), size=(40, 32), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)
    return path


def fill(base, count, mode="RGB"):
    for name, colour in COLOURS.items():
        for number in range(count):
            shade = tuple(channel + number for channel in colour)
            write(base / name / f"{number}.png", shade, mode=mode)


def reds(split):
    return split.images[:, 16, 16, 0]


def test_reads_train_and_test(tmp_path):
    fill(tmp_path / "train", 3)
    write(tmp_path / "test" / "bee" / "x.png", COLOURS["bee"])
    write(tmp_path / "train" / "ant" / ".hidden.png")
    dataset = folder.load(tmp_path)
    assert dataset.name == tmp_path.name
    assert dataset.class_names == ("ant", "bee")
    assert dataset.train.images.shape == (6, 32, 32, 3)
    assert dataset.test.labels.tolist() == [1]
    np.testing.assert_array_equal(dataset.train.labels == 0, reds(dataset.train) >= 200)


@pytest.mark.parametrize("place", ["test", "train"])
def test_pictures_for_testing_are_left_closed_where_they_are_not_wanted(
    tmp_path, place
):
    fill(tmp_path / "train", 6)
    if place == "test":
        fill(tmp_path / "test", 1)
    whole = folder.load(tmp_path)
    taken = sorted(tmp_path.glob(f"{place}/*/*.png"))
    if place == "train":  # by digest, one of six: that of each class which is not there
        trained = {tuple(image[16, 16]) for image in whole.train.images}
        taken = [
            p for p in taken if tuple(Image.open(p).getpixel((0, 0))) not in trained
        ]
    assert len(taken) == 2
    for path in taken:
        path.write_bytes(b"no picture")
    blind = folder.load(tmp_path, with_test=False)
    np.testing.assert_array_equal(blind.train.images, whole.train.images)
    assert not len(blind.test.labels)


@pytest.mark.parametrize("base", ["train", ""])
def test_splits_each_class_five_to_one_by_name_only(tmp_path, base):
    fill(tmp_path / "a" / base, 12)
    fill(tmp_path / "b" / base, 12)
    (tmp_path / "b" / base / "ant" / "0.png").touch()
    first, second = folder.load(tmp_path / "a"), folder.load(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    assert np.bincount(first.train.labels).tolist() == [10, 10]
    assert np.bincount(first.test.labels).tolist() == [2, 2]
    # Every picture is in exactly one of the splits.
    ants = [reds(s)[s.labels == 0].tolist() for s in (first.train, first.test)]
    assert sorted(ants[0] + ants[1]) == list(range(200, 212))
    # Its order mixes the classes, so that holding out the end takes of each.
    assert set(first.train.labels[-8:].tolist()) == {0, 1}


def test_split_and_order_follow_the_digests_of_the_names(tmp_path):
    fill(tmp_path, 12)

    def rank(number):
        return hashlib.sha256(f"ant/{number}.png".encode()).digest()

    ants = [200 + number for number in sorted(range(12), key=rank)]
    dataset = folder.load(tmp_path)
    assert reds(dataset.test)[dataset.test.labels == 0].tolist() == ants[:2]
    assert reds(dataset.train)[dataset.train.labels == 0].tolist() == ants[2:]


def test_grey_pictures_have_one_channel_unless_one_is_coloured(tmp_path):
    fill(tmp_path, 3, mode="L")
    grey = folder.load(tmp_path).train.images
    assert grey.shape[1:] == (32, 32, 1)
    write(tmp_path / "bee" / "9.png")
    colour = folder.load(tmp_path).train.images
    assert colour.shape[1:] == (32, 32, 3)


def one_class(tmp_path):
    write(tmp_path / "train" / "ant" / "0.png")
    return tmp_path / "train"


def add_text(tmp_path):
    (one_class(tmp_path) / "ant" / "notes.txt").write_text("not a picture")
    write(tmp_path / "test" / "ant" / "0.png")


def add_class_to_test(tmp_path):
    one_class(tmp_path)
    write(tmp_path / "test" / "wasp" / "0.png")


def empty_class(tmp_path):
    (one_class(tmp_path) / "bee").mkdir()


def nested(tmp_path):
    (one_class(tmp_path) / "ant" / "more").mkdir()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (add_text, r"notes\.txt cannot be read as a picture"),
        (add_class_to_test, "wasp is a class that train/ does not have"),
        (empty_class, "bee is empty"),
        (nested, "more is not a picture file"),
        (lambda path: write(one_class(path) / "0.png"), "beside the class folders"),
        (lambda path: write(path / "test" / "ant" / "0.png"), "but no train/"),
        (lambda path: (path / "train").mkdir(), "no class folders"),
        (one_class, "fewer than 3 pictures"),
        (lambda path: path.rmdir(), "is not a folder"),
    ],
)
def test_refuses_other_folders(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        folder.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_refuses_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    path = one_class(tmp_path)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)"):
        folder.load(tmp_path)
