import hashlib
import io
import socket
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from cnnjax.data import dataset, tensorflow_import
from cnnjax.data.sources import download
from cnnjax.data.sources import tfds as tfds_source
from cnnjax.errors import InputError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"]
CLASSES += ["ship", "truck"]
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
REGISTERED = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def records(count, seed):
    """CIFAR-10's binary format: a label, then red, green and blue planes."""
    made = np.random.default_rng(seed).integers(0, 256, (count, 3073), np.uint8)
    made[:, 0] %= 10
    return made


BATCHES = {f"data_batch_{i}.bin": records(7, i) for i in range(1, 6)}
BATCHES["test_batch.bin"] = records(4, 6)


def make_archive(root, batches=BATCHES, cut=None):
    members = {name: batch.tobytes() for name, batch in batches.items()}
    members["batches.meta.txt"] = "\n".join([*CLASSES, "", ""]).encode()
    path = root / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(path.read_bytes()[:cut])
    return path


@pytest.fixture
def register(monkeypatch):
    """Registers a small archive in place of the real one."""

    def change(path):
        registered = tfds.builder_cls("cifar10").url_infos
        info = checksums.UrlInfo(
            size=tfds.core.utils.Size(path.stat().st_size),
            checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
            filename=path.name,
        )
        monkeypatch.setitem(registered, URL, info)

    return change


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any try at the network fails the test at once."""

    def refuse(*_, **__):
        pytest.fail("the network was tried")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def prepare(root, name="cifar10", allowed=False):
    """Has TFDS prepare a set, and reads it."""
    download.prepare(name, root, allowed)
    return tfds_source.load(name, str(root), False)


def by_content(images, labels):
    pairs = zip(images, labels, strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)


@pytest.mark.parametrize("allowed", [False, True])
def test_archive_put_by_hand_is_prepared_without_a_network(
    tmp_path, register, allowed, capfd
):
    tensorflow_import.import_tensorflow()
    capfd.readouterr()
    register(make_archive(tmp_path))
    dataset = prepare(tmp_path, allowed=allowed)
    said = capfd.readouterr()
    assert said.out.startswith(f"preparing cifar10 in {tmp_path} from ")
    assert (said.out.count("\n"), said.err) == (2, "")
    assert (dataset.name, dataset.version) == ("cifar10", "3.0.2")
    assert dataset.class_names == tuple(CLASSES)
    for split, names in (
        (dataset.train, list(BATCHES)[:5]),
        (dataset.test, ["test_batch.bin"]),
    ):
        expected = np.concatenate([BATCHES[name] for name in names])
        planes = expected[:, 1:].reshape(-1, 3, 32, 32)
        images = np.moveaxis(planes, 1, -1)
        assert by_content(split.images, split.labels) == by_content(
            images, expected[:, 0]
        )


def test_what_was_prepared_is_read_again_without_the_archive(tmp_path, register):
    path = make_archive(tmp_path)
    register(path)
    first = prepare(tmp_path)
    path.unlink()
    again = tfds_source.load("cifar10", str(tmp_path), False)
    assert again.fingerprint == first.fingerprint


def test_another_archive_is_refused_by_its_checksum(tmp_path):
    path = make_archive(tmp_path)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    message = f"{path.name} is not the file.*{actual}.*{REGISTERED}"
    with pytest.raises(InputError, match=message) as caught:
        prepare(tmp_path)
    assert not isinstance(caught.value, dataset.MissingDatasetError)
    assert [p.name for p in tmp_path.iterdir()] == ["downloads"]


def out_of_range():
    batch = records(3, 1)
    batch[1, 0] = 10
    return batch


@pytest.mark.parametrize(
    ("batches", "cut", "reason"),
    [
        (BATCHES, 4000, "Error while extracting"),
        ({}, None, "data_batch_1.bin"),
        (BATCHES | {"data_batch_3.bin": records(2, 1).ravel()[:-5]}, None, "buffer"),
        (BATCHES | {"data_batch_3.bin": out_of_range()}, None, "label 10 greater"),
    ],
    ids=["truncated", "files missing", "record cut short", "label 10"],
)
def test_broken_archive_leaves_nothing_behind(tmp_path, register, batches, cut, reason):
    path = make_archive(tmp_path, batches, cut)
    register(path)
    with pytest.raises(
        InputError, match=f"could not prepare cifar10.*{reason}"
    ) as caught:
        prepare(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cifar10").exists()
    assert list(tmp_path.rglob("incomplete.*")) == []
    assert path.exists()


def test_an_empty_version_folder_does_not_stand_in_the_way(tmp_path, register):
    register(make_archive(tmp_path))
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    assert len(prepare(tmp_path).test.labels) == 4


@pytest.mark.parametrize(
    ("name", "allowed", "message"),
    [
        ("cifar10", False, "download=False; put cifar-10-binary.tar.gz .170052171"),
        ("cifar100", False, "put cifar-100-binary.tar.gz"),
        ("none_such", True, "TFDS knows no set of that name"),
        ("waymo_open_dataset", True, "TFDS registers no address"),
        ("omniglot", False, "SHA-256"),
    ],
)
def test_missing_set_says_what_to_put_where(tmp_path, name, allowed, message):
    with pytest.raises(dataset.MissingDatasetError, match=message) as caught:
        prepare(tmp_path / "new", name, allowed)
    assert str(tmp_path / "new") in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_decided_at_once_and_said(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        dataset.MissingDatasetError, match=r"www\.cs\.toronto\.edu cannot be reached"
    ):
        prepare(tmp_path / "new", allowed=True)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails_has_said_its_size_and_time(
    tmp_path, monkeypatch, capsys
):
    def fail(self, **_):
        raise OSError("Connection reset by peer\nmore")

    monkeypatch.setattr(download, "reachable", lambda url: url == URL)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(
        dataset.MissingDatasetError, match=r"Connection reset by peer.*or put cifar-10"
    ) as caught:
        prepare(tmp_path / "new", allowed=True)
    assert "\n" not in str(caught.value)
    line = capsys.readouterr().out
    assert "170 MB from www.cs.toronto.edu, about 33 to 52 minutes" in line
    assert list(tmp_path.iterdir()) == []


def test_interrupting_cleans_up_and_goes_on_upwards(tmp_path, monkeypatch, register):
    def interrupt(self, **_):
        (tmp_path / "downloads" / "extracted" / "incomplete.1_x").mkdir(parents=True)
        raise KeyboardInterrupt

    register(make_archive(tmp_path))
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert not (tmp_path / "downloads" / "extracted").exists()


def test_two_that_prepare_one_set_take_turns(tmp_path, monkeypatch, register):
    inside, most = [], []

    def slowly(self, **_):
        inside.append(self)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()

    register(make_archive(tmp_path))
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", slowly)
    both = [
        threading.Thread(target=download.prepare, args=("cifar10", tmp_path, False))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert most == [1, 1]


def test_without_tfds_the_set_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        dataset.MissingDatasetError, match=r"not installed \(tensorflow_d"
    ):
        prepare(tmp_path)
