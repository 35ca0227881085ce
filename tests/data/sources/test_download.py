import hashlib
import io
import socket
import sys
import tarfile
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


def load(root, name="cifar10", download=False):
    return tfds_source.load(name, str(root), download)


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
    dataset = load(tmp_path, download=allowed)
    said = capfd.readouterr()
    assert said.out.startswith(f"preparing cifar10 in {tmp_path} from ")
    assert (said.out.count("\n"), said.err) == (1, "")
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
    first = load(tmp_path)
    path.unlink()
    assert load(tmp_path).fingerprint == first.fingerprint


def test_another_archive_is_refused_by_its_checksum(tmp_path):
    path = make_archive(tmp_path)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    message = f"{path.name} is not the file.*{actual}.*{REGISTERED}"
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path)
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
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cifar10").exists()
    assert list(tmp_path.rglob("incomplete.*")) == []
    assert path.exists()


def test_an_empty_version_folder_does_not_stand_in_the_way(tmp_path, register):
    register(make_archive(tmp_path))
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    assert len(load(tmp_path).test.labels) == 4


@pytest.mark.parametrize("folder", ["downloads/manual", "downloads", ""])
def test_pickled_archive_is_refused_with_what_to_put_where(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "cifar-10-python.tar.gz").write_bytes(b"\x80")
    message = (
        "cifar-10-python.tar.gz holds pickled data.*cifar-10-binary.tar.gz "
        rf"\(170052171 bytes, SHA-256 {REGISTERED}\) into .*downloads/manual/"
    )
    with pytest.raises(InputError, match=message):
        load(tmp_path, download=True)


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
        load(tmp_path / "new", name, allowed)
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
        load(tmp_path / "new", download=True)
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
        load(tmp_path / "new", download=True)
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
        load(tmp_path)
    assert not (tmp_path / "downloads" / "extracted").exists()


def test_estimate_takes_the_rates_of_the_host():
    # 170,052,171 bytes at 85,000 and 55,000 a second.
    assert "about 33 to 52 minutes" in download.estimate(URL, 170_052_171)
    assert "about 1 to 10 minutes" in download.estimate("https://a.org/b", 600_000_000)


def test_reachable_asks_the_host_or_the_proxy(monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    asked = []

    def connect(address, timeout):
        asked.append(address)
        return io.BytesIO()

    monkeypatch.setattr(socket, "create_connection", connect)
    assert download.reachable(URL)
    assert download.reachable("http://a.org:8080/b")
    monkeypatch.setenv("https_proxy", "http://proxy.local:3128")
    assert download.reachable(URL)
    monkeypatch.setenv("https_proxy", "proxy.local:3129")  # as requests takes it
    assert download.reachable(URL)
    monkeypatch.setenv("https_proxy", "http://proxy.local:port")
    assert not download.reachable(URL)
    expected = ["www.cs.toronto.edu", 443, "a.org", 8080]
    expected += ["proxy.local", 3128, "proxy.local", 3129]
    assert [part for address in asked for part in address] == expected


def test_reachable_gives_up_on_a_name_server_that_does_not_answer(monkeypatch):
    def wait(*_, **__):
        time.sleep(2)
        raise socket.gaierror("timed out")

    monkeypatch.setattr(socket, "create_connection", wait)
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.2)
    start = time.monotonic()
    assert not download.reachable(URL)
    assert time.monotonic() - start < 1.5


def test_without_tfds_the_set_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        dataset.MissingDatasetError, match=r"not installed \(tensorflow_d"
    ):
        load(tmp_path)
