import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import cache
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


@pytest.mark.parametrize(
    ("folders", "counts", "said"),
    [
        (("train", "val", "test"), (6, 2, 4), "validation from val/ (2 pictures)"),
        (("train", "valid", "test"), (6, 2, 4), "validation from valid/ (2"),
        (("Train", "Validation", "TEST"), (6, 2, 4), "test from TEST/ (4"),
        (("training", "dev", "testing"), (6, 2, 4), "train from training/ (6"),
        (("train", "val", None), (6, None, 2), "val/ is the test set, as there is no"),
        (("train", None, None), (4, None, 2), "test from a sixth of each class"),
    ],
)
def test_splits_are_what_their_folders_are_called(
    tmp_path, capsys, folders, counts, said
):
    for name, count in zip(folders, (3, 1, 2), strict=True):
        if name:
            fill(tmp_path / name, count)
    dataset = folder.load(tmp_path)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert tuple(split and len(split.labels) for split in splits) == counts
    out = capsys.readouterr().out
    assert out.startswith(f"reading {tmp_path}: train from ") and said in out
    blind = folder.load(tmp_path, with_test=False)
    assert (blind.validation is None) == (dataset.validation is None)
    assert not len(blind.test.labels)


def test_what_is_not_read_is_named_or_a_systems_own(tmp_path, capsys):
    fill(tmp_path / "train", 3)
    write(tmp_path / "test" / "bee" / "0.png")
    (tmp_path / "README.txt").touch()
    for name in ("__MACOSX/train/ant/._0.png", ".git/x", "train/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / "train" / "ant" / name).touch()
    assert len(folder.load(tmp_path).train.labels) == 6
    said = "(1 picture), no test picture of ant, not used: README.txt\n"
    assert capsys.readouterr().out.endswith(said)


def test_names_that_differ_in_their_normal_form_are_one_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for name, number in ((composed, 0), (decomposed, 1), ("dog", 0)):
        write(tmp_path / "train" / name / f"{number}.png")
    write(tmp_path / "test" / decomposed / "0.png")
    dataset = folder.load(tmp_path)
    assert dataset.class_names == (decomposed, "dog")
    assert np.bincount(dataset.train.labels).tolist() == [2, 1]
    assert dataset.test.labels.tolist() == [0]


def test_a_folder_of_a_split_says_that_there_are_others(tmp_path, capsys):
    fill(tmp_path / "train", 6)
    fill(tmp_path / "test", 1)
    folder.load(tmp_path / "train")
    assert f"set data.dir={tmp_path}\n" in capsys.readouterr().out
    # But these may be classes: they hold pictures.
    fill(tmp_path / "acts", 6)
    (tmp_path / "acts" / "ant").rename(tmp_path / "acts" / "training")
    assert folder.load(tmp_path / "acts").class_names == ("bee", "training")


def test_what_was_decoded_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "user_cache", lambda: tmp_path / "cache")
    root = tmp_path / "set"
    for part in ("train", "val", "test"):
        fill(root / part, 2)
    made = folder.load(root, keep=True)
    read = folder.read_picture
    monkeypatch.delattr(folder, "read_picture")
    kept = folder.load(root, keep=True)
    assert (kept.fingerprint, kept.class_names) == (made.fingerprint, ("ant", "bee"))
    np.testing.assert_array_equal(kept.validation.images, made.validation.images)
    monkeypatch.setattr(folder, "read_picture", read, raising=False)
    # A link that is renamed leads to the same files, of another class.
    (root / "train" / "ant").rename(tmp_path / "ants")
    for part in ("val", "test"):
        (root / part / "ant").rename(root / part / "antz")
    (root / "train" / "antz").symlink_to(tmp_path / "ants")
    assert folder.load(root, keep=True).class_names == ("antz", "bee")


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


def both(*names):
    def prepare(tmp_path):
        one_class(tmp_path)
        for name in names:
            write(tmp_path / name / "ant" / "0.png")

    return prepare


def in_place_of_the_folder(make):
    def prepare(tmp_path):
        tmp_path.rmdir()
        make(tmp_path)

    return prepare


def loop(tmp_path):
    (one_class(tmp_path) / "bee").symlink_to(tmp_path / "train" / "bee")


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
        (lambda path: path.rmdir(), "is not a folder.*correct the path"),
        (in_place_of_the_folder(Path.touch), "is not a folder.*unpack it if it is an"),
        (
            in_place_of_the_folder(lambda path: path.symlink_to(path)),
            "is not a folder.*correct the path",
        ),
        (loop, "bee lies beside the class folders"),
        (
            both("test", "unlabelled"),
            "has unlabelled/ beside train/, which is no split",
        ),
        (both("test", "val", "dev"), "has dev/ and val/; one folder is needed"),
        (lambda path: write(path / "val" / "ant" / "0.png"), "has val/ but no train/"),
        (
            lambda path: one_class(path / "in"),
            "one folder too high: .*set data.dir=.*/in",
        ),
        (lambda path: write(path / "0.png"), "holds 0.png and no class folders"),
        (
            lambda path: (
                write(path / "train/ant/0.png", size=(3, 5))
                and write(path / "test/ant/0.png")
            ),
            "3x5 pixels; at least 8x8",
        ),
    ],
)
def test_refuses_other_folders(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        folder.load(tmp_path)
    assert "\n" not in str(caught.value)
    if tmp_path.is_symlink():
        tmp_path.unlink()  # pytest itself would fail on a circle of links at its end


def test_refuses_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    path = one_class(tmp_path)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)"):
        folder.load(tmp_path)


def test_a_file_of_arrays_is_named_as_what_it_is(tmp_path):
    (tmp_path / "a.npz").touch()
    with pytest.raises(InputError, match=r"set data\.source=npz and data\.file"):
        folder.load(tmp_path / "a.npz")
