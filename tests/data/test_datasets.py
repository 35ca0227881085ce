import hashlib
import subprocess
import sys

import numpy as np
import pytest

from cnnjax.data import dataset
from cnnjax.data import load as datasets
from cnnjax.errors import InputError

ARGUMENTS = {
    "source": "tfds",
    "name": "",
    "directory": "",
    "file": "",
    "download": False,
    "on_missing": "embedded",
    "default_name": "cifar10",
    "fallback": "digits",
}


def load(**changed):
    return datasets.load_dataset(**(ARGUMENTS | changed))


def split(count=6, shape=(4, 5, 3), classes=3):
    images = np.arange(count * np.prod(shape)) % 251
    return dataset.Split(
        images.reshape(count, *shape).astype(np.uint8),
        (np.arange(count) % classes).astype(np.int32),
    )


def make(train=None, test=None, names=("a", "b", "c")):
    return dataset.make_dataset("set", "", train or split(), test or split(3), names)


def test_importing_it_imports_no_tensorflow_and_no_source():
    program = (
        "import sys; import cnnjax.data.load; "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('tensorflow', 'tensorflow_datasets', 'sklearn', 'PIL')])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_fingerprint_is_the_sha256_of_all_content_in_order():
    train, test = split(), split(3)
    content = b""
    for array, kind in (
        (train.images, b"uint8 (6, 4, 5, 3)\n"),
        (train.labels, b"int32 (6,)\n"),
        (test.images, b"uint8 (3, 4, 5, 3)\n"),
        (test.labels, b"int32 (3,)\n"),
    ):
        content += kind + array.astype(array.dtype.newbyteorder("<")).tobytes()
    content += b"('a', 'b', 'c')"
    assert make().fingerprint == hashlib.sha256(content).hexdigest()


def test_fingerprint_sees_every_part():
    base = split()
    brighter = base.images.copy()
    brighter[-1, -1, -1, -1] += 1
    variants = [
        make(),
        make(train=dataset.Split(brighter, base.labels)),
        make(train=dataset.Split(base.images, base.labels[::-1])),
        make(test=split(2)),
        make(names=("a", "b", "d")),
        make(split(shape=(5, 4, 3)), split(3, shape=(5, 4, 3))),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert make().fingerprint == make().fingerprint


def test_dataset_brings_arrays_to_one_form():
    turned = split(shape=(5, 4, 3)).images.transpose(0, 2, 1, 3)
    made = make(train=dataset.Split(turned, np.array([0, 1, 2, 0, 1, 2], np.uint64)))
    assert made.train.images.flags.c_contiguous
    np.testing.assert_array_equal(made.train.images, turned)
    assert dataset.train.labels.dtype == np.int32
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (dataset.num_classes, dataset.image_shape) == (3, (4, 5, 3))
    assert dataset.version == dataset.fingerprint[:12]


IMAGES = split().images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), [0] * 6, "images are float32 .*uint8 .*needed"),
        (IMAGES[0], [0] * 4, r"images are uint8 \[4, 5, 3\]"),
        (IMAGES, [0.0] * 6, "labels are float64"),
        (IMAGES, [[0]] * 6, r"labels are int64 \[6, 1\]"),
        (IMAGES, [0] * 5, "6 images and 5 labels"),
        (IMAGES[:0], np.zeros(0, int), "holds no pixel"),
        (IMAGES[:, :0], [0] * 6, "holds no pixel"),
        (IMAGES, [0, 1, 2, 3, 0, 0], r"labels lie in \[0, 3\].*0\.\.2"),
        (IMAGES, [0, 1, 2, -1, 0, 0], r"labels lie in \[-1, 2\]"),
        (IMAGES[:, :3], [0] * 6, "make them the same"),
    ],
)
def test_dataset_refuses_other_arrays(images, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        make(train=dataset.Split(images, np.asarray(labels)))
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("val_examples", [-1, 6, 7])
def test_hold_out_leaves_something_to_train_on(val_examples):
    with pytest.raises(InputError, match=r"data\.val_examples.*set it to 0\.\.5"):
        load.hold_out(make(), val_examples)


@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [("digits", (1501, 296), (28, 28, 1)), ("shapes", (10_000, 2_000), (32, 32, 3))],
)
def test_embedded_sets_are_loaded_by_name(name, counts, shape):
    dataset = load(source="embedded", name=name)
    assert (len(dataset.train.labels), len(dataset.test.labels)) == counts
    assert (dataset.name, dataset.image_shape, dataset.num_classes) == (name, shape, 10)
    assert load(source="embedded", fallback=name).fingerprint == dataset.fingerprint


def test_the_embedded_set_stands_in_only_when_nothing_was_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert load().name == "digits"
    for asked in (
        {"name": "cifar10"},
        {"directory": str(tmp_path)},
        {"on_missing": "error"},
    ):
        with pytest.raises(
            dataset.MissingDatasetError, match="cifar10 is not prepared"
        ):
            load(**asked)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "web"}, "data.source is 'web'; it must be tfds, npz"),
        ({"source": "npz"}, "data.file is empty"),
        ({"file": "my.npz"}, "got data.file='my.npz' .* set --config.data.source=npz"),
        ({"source": "folder"}, "data.dir is empty"),
        ({"source": "embedded", "name": "mnist"}, "no embedded data set 'mnist'"),
    ],
)
def test_load_refuses_what_it_does_not_know(arguments, message):
    with pytest.raises(InputError, match=message):
        load(**arguments)
