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
        ({"x_train": GREY["x_train"] / 255}, r"\[0, 1\], store \(255 \* images"),
        ({"x_train": GREY["x_train"] + 9.5}, r"lie in \[.*; scale them to \[0, 255\]"),
        ({"y_train": np.eye(6, dtype=int)}, r"store labels\.argmax"),
        ({"y_train": GREY["y_train"] > 1}, "labels are bool .*number the classes 0"),
        ({"x_val": GREY["x_test"]}, "has no array y_val"),
        ({"x_extra": GREY["x_test"]}, "x_extra or y_extra, of a split .*not known"),
        ({"x_val": GREY["x_test"], "y_dev": [0, 1]}, "has x_dev or y_dev, of a split"),
        (
            {"y_train": GREY["y_test"].repeat(3) * 1000},
            r"2 kinds from 1000 to 2000, so that 1999 of 2001 .*data\.num_classes=2001",
        ),
    ],
)
def test_refuses_other_arrays(tmp_path, changed, message):
    file = save(tmp_path / "bad.npz", **changed)
    with pytest.raises(InputError, match=message) as caught:
        npz.load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["val", "valid", "validation", "dev"])
def test_a_validation_split_is_used_or_is_the_test_set(tmp_path, capsys, part):
    own = {f"x_{part}": GREY["x_test"][:1], f"y_{part}": GREY["y_test"][:1]}
    dataset = npz.load(save(tmp_path / "a.npz", names=np.array(["a"]), **own))
    np.testing.assert_array_equal(dataset.validation.images[..., 0], GREY["x_test"][:1])
    assert len(dataset.test.labels) == 2
    said = f"validation from x_{part} (1 pictures), test from x_test (2 pictures)"
    assert f"{said}, not used: names\n" in capsys.readouterr().out
    without = {k: v for k, v in (GREY | own).items() if "test" not in k}
    np.savez(tmp_path / "b.npz", **without)
    dataset = npz.load(tmp_path / "b.npz")
    assert dataset.validation is None and len(dataset.test.labels) == 1
    assert f"x_{part} is the test set" in capsys.readouterr().out
    assert not len(npz.load(tmp_path / "b.npz", with_test=False).test.labels)


def test_classes_without_a_picture_are_few_or_asked_for(tmp_path):
    from_one = {"y_train": GREY["y_train"] + 1, "y_test": GREY["y_test"] + 1}
    file = save(tmp_path / "a.npz", **from_one)
    assert npz.load(file).class_names == ("0", "1", "2", "3")
    assert npz.load(file, num_classes=5).class_names == ("0", "1", "2", "3", "4")
    with pytest.raises(InputError, match="out of range for 3 classes"):
        npz.load(file, num_classes=3)
    sparse = save(tmp_path / "b.npz", y_train=GREY["y_test"].repeat(3) * 1000)
    assert len(npz.load(sparse, num_classes=2001).class_names) == 2001


def test_a_single_array_is_told_from_an_archive(tmp_path):
    np.save(tmp_path / "a.npy", GREY["x_train"])
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a single array, a \.npy file"):
        npz.load(tmp_path / "a.npz")


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
