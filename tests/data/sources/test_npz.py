import io
import pickle
import zipfile

import numpy as np
import pytest

from cnnjax.data.sources import npz
from cnnjax.errors import InputError

RNG = np.random.default_rng(0)
GREY = {
    "x_train": RNG.integers(0, 256, (6, 4, 5), np.uint8),
    "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
    "x_test": RNG.integers(0, 256, (2, 4, 5), np.uint8),
    "y_test": np.array([2, 1], np.int64),
}


def save(path, **changed):
    np.savez(path, **(GREY | changed))
    return path


def test_the_test_arrays_are_not_needed_where_they_are_not_wanted(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, x_train=GREY["x_train"], y_train=GREY["y_train"])
    blind = npz.load(file, with_test=False)
    np.testing.assert_array_equal(blind.train.images[..., 0], GREY["x_train"])
    assert blind.test.images.shape == (0, 4, 5, 1)


def test_reads_keras_mnist_layout(tmp_path):
    file = save(tmp_path / "mine.npz")
    dataset = npz.load(file)
    assert (dataset.name, dataset.class_names) == ("mine", ("0", "1", "2"))
    np.testing.assert_array_equal(dataset.train.images[..., 0], GREY["x_train"])
    np.testing.assert_array_equal(dataset.test.images[..., 0], GREY["x_test"])
    np.testing.assert_array_equal(dataset.train.labels, GREY["y_train"])
    np.testing.assert_array_equal(dataset.test.labels, GREY["y_test"])


def test_reads_keras_cifar_layout_compressed_and_in_fortran_order(tmp_path):
    images = RNG.integers(0, 256, (6, 4, 5, 3), np.uint8)
    np.savez_compressed(
        tmp_path / "c.npz",
        x_train=np.asfortranarray(images),
        y_train=GREY["y_train"][:, np.newaxis],
        x_test=images[:2],
        y_test=GREY["y_test"][:, np.newaxis].astype(">i4"),
    )
    dataset = npz.load(tmp_path / "c.npz")
    np.testing.assert_array_equal(dataset.train.images, images)
    assert dataset.train.images.flags.c_contiguous
    assert dataset.test.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": GREY["x_train"] / 255}, "train: images are float64"),
        ({"x_test": GREY["x_test"][0]}, r"test: images are uint8 \[4, 5\]"),
        ({"x_train": GREY["x_train"][:5]}, "5 images and 6 labels"),
        ({"x_test": GREY["x_test"][:0], "y_test": []}, "labels are float64"),
        ({"x_test": GREY["x_test"][:0], "y_test": np.zeros(0, int)}, "no pixel"),
        ({"y_train": np.eye(6)}, "labels are float64"),
        ({"y_test": np.array([0, 3])}, r"\[0, 3\], out of range for 3 classes"),
        ({"y_train": np.arange(6) - 1}, r"\[-1, 4\], out of range"),
        ({"y_train": np.arange(6) * 10**12}, "out of range for 65536 classes"),
        ({"y_test": np.array([1, "b"], object)}, "y_test is a pickled array"),
    ],
)
def test_refuses_other_arrays(tmp_path, changed, message):
    file = save(tmp_path / "bad.npz", **changed)
    with pytest.raises(InputError, match=message) as caught:
        npz.load(file)
    assert "\n" not in str(caught.value)


def test_refuses_a_file_without_all_arrays(tmp_path):
    np.savez(tmp_path / "few.npz", x_train=GREY["x_train"], labels=GREY["y_train"])
    with pytest.raises(InputError, match=r"no array y_train.*x_train, labels"):
        npz.load(tmp_path / "few.npz")


def test_refuses_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        npz.load(tmp_path / "none.npz")


def test_refuses_truncated_pickled_and_foreign_files(tmp_path):
    whole = save(tmp_path / "whole.npz").read_bytes()
    file = tmp_path / "bad.npz"
    for content in (whole[: len(whole) // 2], b"", pickle.dumps(GREY), b"\x89PNG"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.npz cannot be read"):
            npz.load(file)


def test_refuses_a_flipped_byte(tmp_path):
    file = save(tmp_path / "flipped.npz")
    content = bytearray(file.read_bytes())
    content[content.index(GREY["x_train"].tobytes()) + 7] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        npz.load(file)


def write_header(file, shape):
    """Writes an x_train whose header promises `shape` and that holds 100 bytes."""
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x_train.npy", buffer.getvalue() + bytes(100))


def test_refuses_a_member_shorter_than_its_header_says(tmp_path):
    write_header(tmp_path / "short.npz", (60_000, 28, 28))
    with pytest.raises(InputError, match="x_train is truncated"):
        npz.load(tmp_path / "short.npz")


def test_refuses_too_large_an_array_before_reading_it(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"x_train is uint8 \[6, 4, 5\]"):
        npz.load(save(tmp_path / "large.npz"))
