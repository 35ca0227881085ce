import hashlib

import numpy as np
import pytest

from cnnjax.data.dataset import Split, make_dataset
from cnnjax.errors import InputError


def split(count=6, shape=(4, 5, 3), classes=3):
    images = np.arange(count * np.prod(shape)) % 251
    return Split(
        images.reshape(count, *shape).astype(np.uint8),
        (np.arange(count) % classes).astype(np.int32),
    )


def make(train=None, test=None, names=("a", "b", "c")):
    return make_dataset("set", "", train or split(), test or split(3), names)


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
    # A validation split of the set's own comes last, so that other sets keep theirs.
    own = split(1)
    content += b"uint8 (1, 4, 5, 3)\n" + own.images.tobytes()
    content += b"int32 (1,)\n" + own.labels.tobytes()
    made = make_dataset("set", "", train, test, ("a", "b", "c"), own)
    assert made.fingerprint == hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match="validation: labels lie in"):
        make_dataset(
            "set", "", train, test, ("a",) * 3, Split(own.images, np.array([3]))
        )


def test_fingerprint_sees_every_part():
    base = split()
    brighter = base.images.copy()
    brighter[-1, -1, -1, -1] += 1
    variants = [
        make(),
        make(train=Split(brighter, base.labels)),
        make(train=Split(base.images, base.labels[::-1])),
        make(test=split(2)),
        make(names=("a", "b", "d")),
        make(split(shape=(5, 4, 3)), split(3, shape=(5, 4, 3))),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert make().fingerprint == make().fingerprint


def test_dataset_brings_arrays_to_one_form():
    turned = split(shape=(5, 4, 3)).images.transpose(0, 2, 1, 3)
    made = make(train=Split(turned, np.array([0, 1, 2, 0, 1, 2], np.uint64)))
    assert made.train.images.flags.c_contiguous
    np.testing.assert_array_equal(made.train.images, turned)
    assert made.train.labels.dtype == np.int32
    assert made.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (made.num_classes, made.image_shape) == (3, (4, 5, 3))
    assert made.version == made.fingerprint[:12]


IMAGES = split().images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), [0] * 6, "images are float32 .*uint8 .*needed"),
        (IMAGES[0], [0] * 4, r"images are uint8 \[4, 5, 3\].*; reshape them"),
        (IMAGES > 9, [0] * 6, r"bool .*; store 255 \* images\.astype\(np\.uint8\)"),
        (IMAGES.astype(int), [0] * 6, r"; store images\.astype\(np\.uint8\)"),
        (IMAGES * 1.0, [0] * 6, r"; store images\.round\(\)\.astype\(np\.uint8\)"),
        (IMAGES * np.uint16(9), [0] * 6, r"lie in \[0, 2250\]; scale them"),
        (IMAGES * np.nan, [0] * 6, r"lie in \[nan, nan\]; scale them"),
        (IMAGES, [0.0] * 6, r"labels are float64 .*; store labels\.astype\(int\)"),
        (IMAGES, [0.5] * 6, "labels are float64 .*; number the classes"),
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
        make(train=Split(images, np.asarray(labels)))
    assert "\n" not in str(caught.value)
