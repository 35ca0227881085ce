import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import tensorflow_import
from cnnjax.data.sources import tfds
from cnnjax.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[3]
REAL_DATA = Path(
    os.environ.get("CNNJAX_DATA_DIR")
    or REPOSITORY.parent / "shared" / "data" / "tensorflow_datasets"
)


def pictures(count, shape=(4, 5, 3)):
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


def split(count, shape=(4, 5, 3)):
    return {"image": pictures(count, shape), "label": np.arange(count) % 2}


@pytest.fixture(scope="module")
def written(write_tfds, tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    return write_tfds(root, train=split(2003), test=split(3))


@pytest.fixture
def copy(written, tmp_path):
    target = tmp_path / "mine" / "1.0.0"
    shutil.copytree(written, target)
    return target


def load(root, name="mine"):
    return tfds.load(name, str(root), download=False)


def test_reads_a_set_that_tfds_does_not_know_in_its_order(written):
    dataset = load(written.parents[1])
    assert (dataset.name, dataset.version) == ("mine", "1.0.0")
    assert dataset.class_names == ("ant", "bee")
    np.testing.assert_array_equal(dataset.train.images, pictures(2003))
    np.testing.assert_array_equal(dataset.train.labels, np.arange(2003) % 2)
    np.testing.assert_array_equal(dataset.test.images, pictures(3))


def test_the_test_split_is_left_closed_where_it_is_not_wanted(copy):
    for file in copy.glob("*-test.*"):
        file.write_bytes(b"none of a search's business")
    blind = tfds.load("mine", str(copy.parents[1]), False, with_test=False)
    np.testing.assert_array_equal(blind.train.images, pictures(2003))
    assert blind.test.images.shape == (0, 4, 5, 3) and not len(blind.test.labels)
    with pytest.raises(InputError, match="cannot be read"):
        load(copy.parents[1])


def test_finds_the_set_through_the_environment(written, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(written.parents[1]))
    assert load("").name == "mine"


def test_a_folder_above_or_below_is_pointed_at(copy, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "mine").rename(tmp_path / "in" / "mine")
    for root in ("", "in/mine", "in/mine/1.0.0", "in/mine/typo"):
        words = f"which data.dir names, but in {tmp_path}/in; set data.dir to that"
        with pytest.raises(InputError, match=words):
            load(tmp_path / root)


def test_reading_is_quiet_and_keeps_off_the_accelerators(written):
    program = (
        "import sys; from cnnjax.data.sources import tfds; "
        "tfds.load('mine', sys.argv[1], False); "
        "import tensorflow as tf; print(tf.config.get_visible_devices('GPU'))"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(written.parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = f"reading mine from {written} (prepared by TFDS)\n"
    assert (done.stdout, done.stderr) == (f"{said}[]\n", "")


def test_validation_split_stands_in_for_test_and_is_named(write_tfds, tmp_path, capfd):
    write_tfds(tmp_path, train=split(4), validation=split(2))
    capfd.readouterr()
    np.testing.assert_array_equal(load(tmp_path).test.images, pictures(2))
    assert "mine has no test split: its validation split" in capfd.readouterr().out
    write_tfds(tmp_path, "all", train=split(4), validation=split(2), test=split(3))
    capfd.readouterr()
    dataset = load(tmp_path, "all")
    assert dataset.validation is None and len(dataset.test.labels) == 3
    said = "all has a split validation of 2 pictures, which is not used\n"
    assert said in capfd.readouterr().out


def test_images_of_an_open_size_are_read_where_they_are_all_of_one(
    write_tfds, tmp_path
):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 1)),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    same, other = split(3, (6, 4, 1)), split(2, (4, 6, 1))
    write_tfds(tmp_path, "same", features=features, train=same, test=same)
    dataset = load(tmp_path, "same")
    np.testing.assert_array_equal(dataset.train.images, pictures(3, (6, 4, 1)))
    assert dataset.class_names == ("0", "1")

    write_tfds(tmp_path, "mixed", features=features, train=same, test=other)
    with pytest.raises(InputError, match="make them the same"):
        load(tmp_path, "mixed")


def test_refuses_images_of_several_sizes_in_a_split(tmp_path):
    tf = tensorflow_import.import_tensorflow()
    import tensorflow_datasets as tfds

    def examples():
        for shape in ((6, 4, 1), (6, 5, 1)):
            yield {"image": np.zeros(shape, np.uint8), "label": 0}

    kinds = tfds.features
    mixed = tf.data.Dataset.from_generator(
        examples,
        output_signature={
            "image": tf.TensorSpec((None, None, 1), tf.uint8),
            "label": tf.TensorSpec((), tf.int64),
        },
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        "mixed",
        "1.0.0",
        data_dir=tmp_path,
        features=kinds.FeaturesDict(
            {
                "image": kinds.Image(shape=(None, None, 1)),
                "label": kinds.ClassLabel(num_classes=2),
            }
        ),
        split_datasets={"train": mixed, "test": mixed},
    )
    with pytest.raises(InputError, match=r"images of \(6, [45], 1\) and of \(6, [45]"):
        load(tmp_path, "mixed")


def test_refuses_other_features_splits_and_labels(write_tfds, tmp_path):
    import tensorflow_datasets as tfds

    kinds = tfds.features
    image, label = kinds.Image(shape=(4, 5, 3)), kinds.ClassLabel(num_classes=2)
    deep = kinds.Image(shape=(4, 5, 1), dtype=np.uint16, encoding_format="png")
    whole = split(3)
    numbers = whole["label"]
    cases = [
        (
            {"picture": image, "label": label},
            pictures(3),
            r"label \(ClassLabel\), picture \(Image\)",
        ),
        (
            {"image": image, "label": kinds.Scalar(np.int64)},
            pictures(3),
            r"label .Scalar.; image \(Image\) and label \(ClassLabel\) are needed",
        ),
        (
            {"image": deep, "label": label},
            np.zeros((3, 4, 5, 1), np.uint16),
            "images of uint16; uint8 is needed",
        ),
    ]
    for features, images, message in cases:
        name = f"case{len(message)}"
        data = {next(iter(features)): images, "label": numbers}
        write_tfds(tmp_path, name, features=features, train=data, test=data)
        with pytest.raises(InputError, match=message) as caught:
            load(tmp_path, name)
        assert "\n" not in str(caught.value)

    write_tfds(tmp_path, "one_split", train=whole)
    with pytest.raises(InputError, match="has the splits train; train and test"):
        load(tmp_path, "one_split")

    unlabelled = {"image": pictures(3), "label": np.full(3, -1)}
    write_tfds(tmp_path, "unlabelled", train=whole, test=unlabelled)
    with pytest.raises(InputError, match=r"test: labels lie in \[-1, -1\]"):
        load(tmp_path, "unlabelled")


def test_refuses_more_than_fits(written, monkeypatch):
    monkeypatch.setattr(tfds, "MAX_BYTES", 2003 * 60 - 1)
    with pytest.raises(InputError, match=r"train takes .* GiB"):
        load(written.parents[1])


def test_refuses_broken_data(copy):
    (record,) = copy.glob("*train.tfrecord*")
    whole = record.read_bytes()
    for content in (whole[:-7], whole[:3000] + b"?" + whole[3001:], b""):
        record.write_bytes(content)
        with pytest.raises(InputError, match=r"1\.0\.0 cannot be read") as caught:
            load(copy.parents[1])
        assert "\n" not in str(caught.value) and "{{" not in str(caught.value)


def test_refuses_broken_metadata(copy):
    info = copy / "dataset_info.json"
    whole = info.read_text()
    info.write_text(whole[:-9])
    with pytest.raises(InputError, match="cannot be read"):
        load(copy.parents[1])
    info.write_text(whole.replace('"2003"', '"0"'))
    with pytest.raises(InputError, match="has 0 training and 3 test examples"):
        load(copy.parents[1])
    info.unlink()
    with pytest.raises(InputError, match=r"has no dataset_info\.json"):
        load(copy.parents[1])


def lay(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for file in ("features.json", "dataset_info.json"):
            (root / folder / file).touch()


def test_finds_the_highest_version_or_the_one_named(tmp_path):
    lay(tmp_path, "a/1.9.0", "a/1.10.0", "b/big/2.0.0", "c/x/1.0.0", "c/y/1.0.0")
    (tmp_path / "a" / "9.9.9").mkdir()
    (tmp_path / "a" / "incomplete.ABC_9.9.9").mkdir()
    find = tfds.find_prepared
    assert find(tmp_path, "a", "", "") == tmp_path / "a" / "1.10.0"
    assert find(tmp_path, "a", "", "1.9.0") == tmp_path / "a" / "1.9.0"
    assert find(tmp_path, "a", "", "3.0.0") is None
    assert find(tmp_path, "b", "", "") == tmp_path / "b" / "big" / "2.0.0"
    assert find(tmp_path, "c", "y", "") == tmp_path / "c" / "y" / "1.0.0"
    assert find(tmp_path, "d", "", "") is None
    with pytest.raises(InputError, match="holds the configurations x, y"):
        find(tmp_path, "c", "", "")


def test_says_when_a_folder_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(InputError, match=r"mine cannot be listed \(Permission denied"):
        tfds.find_prepared(tmp_path, "mine", "", "")


@pytest.mark.parametrize("name", ["../mine", "a/../b", "a b", "mine:1", "/etc", "a/.."])
def test_refuses_names_that_are_none(tmp_path, name):
    with pytest.raises(InputError, match=r"data\.name is .*such as cifar10"):
        load(tmp_path, name)


def test_says_when_tensorflow_is_not_installed(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"not installed \(tensorflow_datasets"):
        load(written.parents[1])


def real(name):
    if not (REAL_DATA / name).is_dir():
        pytest.skip(f"{name} is not in {REAL_DATA}; set CNNJAX_DATA_DIR")
    return load(REAL_DATA, name)


@pytest.mark.real_data
def test_mnist_is_the_original_byte_for_byte():
    dataset = real("mnist")
    assert dataset.train.images.shape == (60_000, 28, 28, 1)
    assert dataset.test.images.shape == (10_000, 28, 28, 1)
    # TFDS orders examples by a hash of their place in the original file; undone, the
    # MD5 is that of train-images-idx3-ubyte as published: a header, then the pixels.
    from tensorflow_datasets.core import hashing

    hasher = hashing.Hasher("train")
    order = sorted(range(60_000), key=hasher.hash_key)
    original = np.empty_like(dataset.train.images)
    original[order] = dataset.train.images
    header = struct.pack(">IIII", 2051, 60_000, 28, 28)
    digest = hashlib.md5(header + original.tobytes()).hexdigest()
    assert digest == "6bbc9ace898e44ae57da46a324031adb"
    assert dataset.class_names == tuple("0123456789")


@pytest.mark.real_data
def test_cifar10_is_what_the_results_were_measured_on():
    dataset = real("cifar10")
    results = REPOSITORY / "experiments" / "results"
    runs = json.loads((results / "runs.json").read_text())["runs"]
    (data,) = {tuple(run["data"].values()) for run in runs if run["row"] == "base"}
    assert (dataset.name, dataset.version, dataset.fingerprint) == data
    assert dataset.train.images.shape == (50_000, 32, 32, 3)
    assert np.bincount(dataset.train.labels).tolist() == [5_000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1_000] * 10
    assert dataset.class_names[::9] == ("airplane", "truck")
