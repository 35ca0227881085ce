import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import load
from cnnjax.data.dataset import MissingDatasetError, Split, make_dataset
from cnnjax.data.load import Source
from cnnjax.errors import InputError


def load_source(kind="tfds", *, stand_in="digits", with_test=True, **changed):
    source = Source(kind, **({"download": False, "on_missing": "embedded"} | changed))
    return load.load_source(
        source, default_name="cifar10", stand_in=stand_in, with_test=with_test
    )


def split(count=6):
    images = np.arange(count * 60).reshape(count, 4, 5, 3) % 251
    return Split(images.astype(np.uint8), (np.arange(count) % 3).astype(np.int32))


def make(train=None):
    return make_dataset("set", "", train or split(), split(3), ("a", "b", "c"))


IMAGES = split().images


def test_importing_it_imports_no_tensorflow_and_no_source():
    program = (
        "import sys; import cnnjax.data.load; "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('tensorflow', 'tensorflow_datasets', 'sklearn', 'PIL')"
        " or m.startswith('cnnjax.data.sources.')])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_hold_out_takes_the_last_training_examples():
    dataset = make()
    smaller, held = load.hold_out(dataset, 2)
    np.testing.assert_array_equal(smaller.train.images, IMAGES[:4])
    np.testing.assert_array_equal(held.images, IMAGES[4:])
    assert smaller.train.labels.tolist() + held.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert smaller.test is dataset.test
    assert smaller.fingerprint == make(train=smaller.train).fingerprint
    untouched, nothing = load.hold_out(dataset, 0)
    assert untouched is dataset
    assert nothing.images.shape == (0, 4, 5, 3)


def test_take_first_is_as_if_there_were_no_others():
    first = load.take_first(make(), 4)
    np.testing.assert_array_equal(first.train.images, IMAGES[:4])
    assert first.fingerprint == make(train=first.train).fingerprint
    assert load.take_first(make(), 6).fingerprint == make().fingerprint
    for count in (0, 7):
        with pytest.raises(InputError, match=r"need 1 to 6.*; or 0 for all"):
            load.take_first(make(), count)


def test_a_validation_split_of_its_own_is_not_held_out_from() -> None:
    own = make_dataset("set", "", split(), split(3), ("a", "b", "c"), split(2))
    assert load.take_first(own, 4).validation is own.validation
    assert load.take_first(own, 4).fingerprint != load.take_first(make(), 4).fingerprint
    with pytest.raises(InputError, match="val_examples=2, but set has a validation sp"):
        load.hold_out(own, 2)
    assert load.hold_out(own, 0)[0] is own


@pytest.mark.parametrize("val_examples", [-1, 6, 7])
def test_hold_out_leaves_something_to_train_on(val_examples):
    with pytest.raises(InputError, match=r"data\.val_examples.*set it to 0\.\.5"):
        load.hold_out(make(), val_examples)


@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [("digits", (1501, 296), (28, 28, 1)), ("shapes", (10_000, 2_000), (32, 32, 3))],
)
def test_embedded_sets_are_loaded_by_name(name, counts, shape):
    dataset = load_source("embedded", name=name)
    assert (len(dataset.train.labels), len(dataset.test.labels)) == counts
    assert (dataset.name, dataset.image_shape, dataset.num_classes) == (name, shape, 10)
    for found in (load_source("embedded", stand_in=name), load.load_dataset(name)):
        assert found.fingerprint == dataset.fingerprint


def test_the_embedded_set_stands_in_only_when_nothing_was_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert load_source().name == "digits"
    for asked in (
        {"name": "cifar10"},
        {"directory": str(tmp_path)},
        {"on_missing": "error"},
    ):
        with pytest.raises(MissingDatasetError, match="cifar10 is not prepared"):
            load_source(**asked)
    assert list(tmp_path.iterdir()) == []
    for missing in ("typo", "a.txt"):
        (tmp_path / "a.txt").touch()
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / missing))
        with pytest.raises(InputError, match=f"got TFDS_DATA_DIR={tmp_path}/{missing}"):
            load_source()


def test_classes_without_a_training_picture_are_named(tmp_path, capsys):
    arrays = {"x_train": IMAGES, "y_train": np.arange(6) % 2 + 1}
    np.savez(tmp_path / "a.npz", x_test=IMAGES, y_test=[1] * 6, **arrays)
    load.load_dataset(str(tmp_path / "a.npz"))
    out = capsys.readouterr().out
    assert "a has no training picture of 0, of its 3 classes\n" in out
    load.load_dataset(str(tmp_path / "a.npz"), num_classes=14)
    assert "of 0, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 others, of its 14" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "web"}, "data.source is 'web'; it must be tfds, npz"),
        ({"kind": "npz"}, "data.file is empty"),
        ({"file": "my.npz"}, "got data.file='my.npz' .* set --config.data.source=npz"),
        ({"kind": "folder"}, "data.dir is empty"),
        ({"kind": "embedded", "name": "mnist"}, "no embedded data set 'mnist'"),
        ({"file": "a", "name": "b"}, "data.file='a' and data.source=tfds, need .*npz"),
        ({"kind": "npz", "name": "a"}, "data.name='a' .*=npz, need .*tfds or embedded"),
        ({"kind": "npz", "directory": "a"}, "data.dir='a' .* need .*tfds or folder"),
        ({"kind": "embedded", "directory": "a"}, "data.dir='a' and data.source=embed"),
        ({"kind": "folder", "name": "a", "directory": "b"}, "got data.name='a' and"),
        (
            {"kind": "npz", "mirror": "http://a"},
            "data.mirror='http://a' .* leave data.m",
        ),
        ({"kind": "embedded", "num_classes": 9}, "num_classes=9, but digits has 10"),
    ],
)
def test_load_source_refuses_what_it_has_no_use_for(arguments, message):
    with pytest.raises(InputError, match=message):
        load_source(**arguments)


@pytest.fixture
def home(tmp_path, monkeypatch, write_tfds):
    """The current folder and home: a set of each kind, TFDS's prepared and named."""
    dataset = make()
    for part in ("train", "test"):
        for label in "ab":
            (tmp_path / "pictures" / part / label).mkdir(parents=True)
            image = Image.fromarray(dataset.train.images[ord(label) - ord("a")])
            image.resize((10, 8)).save(tmp_path / "pictures" / part / label / "0.png")
    np.savez(
        tmp_path / "mine.npz",
        **{f"x_{name}": getattr(dataset, name).images for name in ("train", "test")},
        **{f"y_{name}": getattr(dataset, name).labels for name in ("train", "test")},
    )
    (tmp_path / "words.txt").touch()
    (tmp_path / "cifar10").mkdir()
    for name in ("mine", "digits"):
        prepared = {"image": IMAGES, "label": np.arange(6) % 2}
        write_tfds(tmp_path / "tfds", name, train=prepared, test=prepared)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "directory", "source"),
    [
        ("digits", "", {"kind": "embedded", "name": "digits"}),
        ("mine.npz", "", {"kind": "npz", "file": "mine.npz"}),
        ("~/mine.npz", "", {"kind": "npz", "file": "mine.npz"}),
        (Path("mine.npz"), "", {"kind": "npz", "file": "mine.npz"}),
        (Path("pictures"), "", {"kind": "folder", "directory": "pictures"}),
        ("mine", Path("tfds"), {"kind": "tfds", "name": "mine"}),
        ("pictures", "", {"kind": "folder", "directory": "pictures"}),
        ("./pictures", "", {"kind": "folder", "directory": "pictures"}),
        ("~/pictures", "", {"kind": "folder", "directory": "pictures"}),
        ("{home}/pictures", "", {"kind": "folder", "directory": "pictures"}),
        ("mine", "", {"kind": "tfds", "name": "mine"}),
        ("mine:1.0.0", "tfds", {"kind": "tfds", "name": "mine"}),
        # With a data dir it is a name of TFDS, whatever else is called so.
        ("digits", "tfds", {"kind": "tfds", "name": "digits"}),
    ],
)
def test_a_set_is_loaded_by_name_file_or_folder(home, name, directory, source):
    name = name.format(home=home) if isinstance(name, str) else name
    found = load.load_dataset(name, dir=directory, download=False)
    expected = load_source(**source)
    assert (found.name, found.version) == (expected.name, expected.version)
    assert found.fingerprint == expected.fingerprint
    assert len(found.test.labels)
    blind = load.load_dataset(name, dir=directory, download=False, with_test=False)
    np.testing.assert_array_equal(blind.train.images, found.train.images)
    assert not len(blind.test.labels)


@pytest.mark.parametrize(
    ("name", "directory", "error", "message"),
    [
        ("cifar10", "", MissingDatasetError, "cifar10 is not prepared in .*/tfds and"),
        ("mine", "pictures", MissingDatasetError, "mine is not prepared in pictures"),
        ("digits", "pictures", MissingDatasetError, "digits is not prepared"),
        ("mine", "mine.npz", InputError, "dir=mine.npz, which is a file.*name the one"),
        ("nowhere.npz", "", InputError, "nowhere.npz does not exist"),
        ("nowhere.NPZ", "", InputError, "nowhere.NPZ does not exist"),
        ("./nowhere", "", InputError, "nowhere is not a folder"),
        ("C:\\no\\where", "", InputError, r"C:\\no\\where is not a folder"),
        ("../no/where", "", InputError, "where is not a folder"),
        ("no/where/at/all", "", InputError, "no/where/at/all is not a folder"),
        (Path("nowhere"), "", InputError, "nowhere is not a folder"),
        (Path("digits"), "", InputError, "digits is not a folder"),
        ("words.txt", "", InputError, "not a folder.*; unpack it if it is an archive"),
        ("/nowhere", "", InputError, "nowhere is not a folder"),
        ("no such set", "", InputError, "TFDS names are NAME"),
    ],
)
def test_what_was_named_is_that_or_an_error(home, name, directory, error, message):
    with pytest.raises(error, match=message):
        load.load_dataset(name, dir=directory, download=False)
