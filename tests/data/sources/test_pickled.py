"""The reader of pickles builds what CIFAR's batches hold and nothing else."""

import collections
import os
import pickle

import numpy as np
import pytest

from cnnjax.data.sources import pickled
from cnnjax.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)


def batch(**changed):
    whole = {"data": IMAGES, "labels": [3, 0, 9, 1], "filenames": [b"a.png"] * 4}
    return {name.encode(): value for name, value in (whole | changed).items()}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("fortran", [False, True])
def test_batches_of_every_protocol_are_read(protocol, fortran):
    data = np.asfortranarray(IMAGES) if fortran else IMAGES
    content = pickle.dumps(batch(data=data), protocol)
    images, labels = pickled.decode(content, "labels")
    np.testing.assert_array_equal(images, IMAGES)
    assert labels.tolist() == [3, 0, 9, 1]


def test_the_official_files_are_of_python_2():
    # As Python 2 wrote them: text is bytes, and NumPy's module has its old name.
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03"
        b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x06\x01\x02\x03\x04\x05\xfftbU\x06labelsq\x08"
        b"]q\x09(K\x05K\x06eu."
    )
    images, labels = pickled.decode(content, "labels")
    assert images.tolist() == [[1, 2, 3], [4, 5, 255]]
    assert labels.tolist() == [5, 6]


class Asks:
    """Pickles as a call of a function, as an attacker would have it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "asked",
    [
        Asks(os.system, "touch executed"),
        Asks(eval, "open('executed', 'w')"),
        Asks(os.mkdir, "executed"),
        Asks(np.save, "executed", np.zeros(1)),
        Asks(getattr, "text", "upper"),
        collections.OrderedDict(a=1),
    ],
    ids=["system", "eval", "mkdir", "numpy.save", "getattr", "OrderedDict"],
)
def test_nothing_else_is_built_or_called(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (batch(labels=asked), asked, [asked]):
        with pytest.raises(InputError, match="it asks for") as caught:
            pickled.decode(pickle.dumps(content, 2), "labels")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        pickle.dumps(batch())[:-40],
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": IMAGES}),
        pickle.dumps(batch(data=IMAGES.astype(np.int16))),
        pickle.dumps(batch(data=IMAGES.ravel())),
        pickle.dumps(batch(labels=[0.5] * 4)),
        pickle.dumps(batch(labels=["a"] * 4)),
    ],
)
def test_another_object_is_refused_on_one_line(content):
    with pytest.raises(InputError, match="is not a batch of pictures") as caught:
        pickled.decode(content, "labels")
    assert "\n" not in str(caught.value)
