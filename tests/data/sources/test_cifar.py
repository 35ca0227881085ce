"""All forms of CIFAR give what TFDS prepares; small sets stand for the real ones."""

import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import sys
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.download import checksums

from cnnjax.data import cache
from cnnjax.data.dataset import MissingDatasetError
from cnnjax.data.sources import cifar, download, published
from cnnjax.data.sources import tfds as source
from cnnjax.data.sources.published import SETS
from cnnjax.errors import InputError, MissingPackageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

BATCH, TEST = 11, 7


@functools.cache
def records(name):
    """Returns {binary file: uint8 [n, record]} of a small set."""
    rng, known = np.random.default_rng(7), SETS[name]
    made = {}
    for split, digests in known.binary.digests.items():
        for file in digests:
            count = TEST if split == "test" else BATCH * 5 // len(digests)
            shape = count, known.label_bytes + 3072
            made[file] = rng.integers(0, 256, shape, np.uint8)
            made[file][:, known.label_bytes - 1] %= len(known.class_names)
            if known.label_bytes == 2:
                made[file][:, 0] %= 20  # CIFAR-100's superclasses
    return made


def batches(name):
    """Returns {pickled file: its content}."""
    known, made = SETS[name], {}
    for file, plain in zip(known.pickled.names(), records(name).values(), strict=True):
        made[file] = pickle.dumps(
            {
                b"data": plain[:, known.label_bytes :].copy(),
                known.label_key.encode(): plain[:, known.label_bytes - 1].tolist(),
                b"filenames": [b"a.png"] * len(plain),
            },
            2,
        )
    return made


@pytest.fixture(params=["cifar10", "cifar100"])
def name(request):
    return request.param


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Puts the digests of the small sets in place of the real ones; no usual places."""
    monkeypatch.setitem(published.COUNTS, "train", 5 * BATCH)
    monkeypatch.setitem(published.COUNTS, "test", TEST)
    for name in SETS:
        known, small = SETS[name], batches(name)
        for split in ("train", "test"):
            for file in known.pickled.digests[split]:
                digest = hashlib.md5(small[file]).hexdigest()
                monkeypatch.setitem(known.pickled.digests[split], file, digest)
            for file, digest in known.binary.digests[split].items():
                if digest:
                    digest = hashlib.sha256(records(name)[file].tobytes()).hexdigest()
                    monkeypatch.setitem(known.binary.digests[split], file, digest)
    for variable in ("TFDS_DATA_DIR", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)


def pack(path, folder, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for file, content in {"readme.html": b"x", **contents}.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def binary(name):
    return {file: plain.tobytes() for file, plain in records(name).items()}


def png(planes):
    file = io.BytesIO()
    Image.fromarray(planes.reshape(3, 32, 32).transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder, name, order, column="img", struct=True, parts=1):
    """Writes the rows `order(split, official rows)` of each split."""
    known = SETS[name]
    folder.mkdir(parents=True)
    for split, files in known.binary.digests.items():
        rows = np.concatenate([records(name)[file] for file in files])
        rows = rows[order(split, len(rows))]
        for i, some in enumerate(np.array_split(rows, parts)):
            cells = [png(row[known.label_bytes :]) for row in some]
            table = {
                column: [{"bytes": c, "path": None} for c in cells]
                if struct
                else cells,
                known.label_column: some[:, known.label_bytes - 1].astype(np.int64),
            }
            path = folder / f"{split}-{i:05}-of-{parts:05}.parquet"
            parquet.write_table(pyarrow.table(table), path)


@pytest.fixture
def archive_of(tmp_path, monkeypatch):
    """Returns (name, path): writes the binary archive and has TFDS register it."""

    def archive_of(name, path):
        known = SETS[name]
        labels = {"batches.meta.txt": "\n".join(known.class_names).encode()}
        if name == "cifar100":
            labels = {
                "fine_label_names.txt": labels["batches.meta.txt"],
                "coarse_label_names.txt": "\n".join(map(str, range(20))).encode(),
            }
        pack(path, known.binary.folder, binary(name) | labels)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size = tfds.core.utils.Size(path.stat().st_size)
        info = checksums.UrlInfo(size=size, checksum=digest, filename=path.name)
        monkeypatch.setitem(tfds.builder_cls(name).url_infos, known.url, info)
        monkeypatch.setitem(
            SETS, name, published.dataclasses.replace(known, sha256=digest)
        )

    return archive_of


def official(_, count):
    return np.arange(count)


def blocks_moved(split, count):
    parts = 5 if split == "train" else 1
    return np.roll(np.arange(count).reshape(parts, -1), 2, axis=0).ravel()


def load(root, name="cifar10", **options):
    return source.load(name, str(root), options.pop("download", False), **options)


def test_every_form_gives_what_tfds_prepares(name, tmp_path, archive_of, capsys):
    known = SETS[name]
    (binary_archive,) = known.binary.archives
    archive_of(name, tmp_path / "tfds" / cifar.MANUAL / binary_archive)
    download.prepare(name, tmp_path / "tfds", False)
    (tmp_path / "tfds" / cifar.MANUAL / binary_archive).unlink()
    (tmp_path / "tfds" / name).rename(tmp_path / name)
    prepared = load(tmp_path, name)
    (tmp_path / name).rename(tmp_path / "tfds" / name)
    assert (prepared.version, len(prepared.train.labels)) == (cifar.VERSION, 5 * BATCH)

    archive_of(name, tmp_path / "archive" / binary_archive)
    write(tmp_path / "folder" / known.binary.folder, binary(name))
    write(tmp_path / "pickled" / known.pickled.folder, batches(name))
    keras = f"{known.pickled.folder}-target/{known.pickled.folder}"
    write(tmp_path / "keras" / keras, batches(name))
    for i, file in enumerate(known.pickled.archives):
        pack(tmp_path / f"packed{i}" / file, known.pickled.folder, batches(name))
    write_parquet(tmp_path / "hub" / known.hub[1], name, official, parts=3)
    write_parquet(tmp_path / "image", name, official, column="image", struct=False)
    if name == "cifar10":
        write_parquet(tmp_path / "moved", name, blocks_moved)
        write_parquet(tmp_path / "prepared", name, cifar.tfds_order)
    roots = sorted(p for p in tmp_path.iterdir() if p.name not in ("home", "elsewhere"))
    assert len(roots) == (11 if name == "cifar10" else 8)
    capsys.readouterr()
    for root in [*roots, tmp_path / "folder" / known.binary.folder]:
        found = load(root, name)
        assert found.fingerprint == prepared.fingerprint, root
        assert (found.name, found.version) == (name, prepared.version)
        assert f"reading {name} from {root}" in capsys.readouterr().out
        train = load(root, name, with_test=False)
        np.testing.assert_array_equal(train.train.images, prepared.train.images)
        assert len(train.test.labels) == 0


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_order_is_that_of_tfds(split):
    hasher = hashing.Hasher(split)
    expected = sorted(range(1234), key=hasher.hash_key)
    np.testing.assert_array_equal(cifar.tfds_order(split, 1234), expected)


def assert_refused(root, message, name="cifar10", kind=InputError):
    before = sorted(root.rglob("*"))
    with pytest.raises(kind, match=message) as caught:
        load(root, name, download=True)
    assert "\n" not in str(caught.value)
    assert sorted(root.rglob("*")) == before


def flip(content, at=1000):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


class Attack:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_that_is_not_official_is_refused_unread(packed, tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError("it was read")

    monkeypatch.setattr(cifar.pickled, "decode", fail)
    evil = pickle.dumps({b"data": Attack(), b"labels": []})
    for file, content in (
        ("data_batch_3", flip(batches("cifar10")["data_batch_3"])),
        ("test_batch", evil),
    ):
        contents = batches("cifar10") | {file: content}
        root = tmp_path / file
        form = SETS["cifar10"].pickled
        if packed:
            pack(root / form.archives[0], form.folder, contents)
        else:
            write(root / form.folder, contents)
        digest = hashlib.md5(content).hexdigest()
        message = rf"{file} is not the official file .* MD5 is {digest}, needed is"
        assert_refused(root, message)
    assert os.listdir() == []


def test_even_a_pickle_with_the_right_digest_runs_nothing(tmp_path, monkeypatch):
    evil = pickle.dumps({b"data": Attack(), b"labels": [0] * TEST})
    digests, digest = SETS["cifar10"].pickled.digests, hashlib.md5(evil).hexdigest()
    monkeypatch.setitem(digests["test"], "test_batch", digest)
    write(tmp_path / "cifar-10-batches-py", batches("cifar10") | {"test_batch": evil})
    assert_refused(tmp_path, r"test_batch is not a batch .*asks for (posix|nt)\.mkdir")
    assert os.listdir() == []


def test_damaged_binary_files_are_refused(name, tmp_path):
    known = SETS[name]
    for i, file in enumerate(known.binary.names()):
        contents, root = binary(name), tmp_path / str(i)
        damaged = contents[file]
        damaged = flip(damaged) if name == "cifar10" else damaged[:-1]
        write(root / known.binary.folder, contents | {file: damaged})
        message = "is not the official file.*SHA-256|multiple of 3074"
        assert_refused(root, rf"{file} .*({message})", name)
        (root / known.binary.folder / file).unlink()
        assert_refused(root, file, name)
        os.mkfifo(root / known.binary.folder / file)
        assert_refused(root, file, name)
    root = tmp_path / "short"
    write(root / known.binary.folder, binary(name) | {"test.bin": bytes(3074)})
    if name == "cifar100":
        assert_refused(root, "1 pictures for test, 7 are needed", name)


@pytest.mark.parametrize("form", ["binary", "pickled"])
@pytest.mark.parametrize("cut", [0, 10, 5000, -200])
def test_half_an_archive_is_refused(form, cut, tmp_path):
    known = getattr(SETS["cifar10"], form)
    contents = (binary if form == "binary" else batches)("cifar10")
    path = tmp_path / known.archives[0]
    pack(path, known.folder, contents)
    path.write_bytes(path.read_bytes()[:cut])
    assert_refused(tmp_path, f"{path.name} (cannot be read|has no)")


def test_other_archives_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "cifar-10-binary.tar.gz"
    pack(path, "cifar-10-batches-bin", {"data_batch_1.bin": b"1"})
    assert_refused(tmp_path, "has no data_batch_2.bin, data_batch_3.bin")
    path.write_bytes(b"<html>not found</html>")
    assert_refused(tmp_path, "cannot be read")
    hundred = tmp_path / "100" / "cifar-100-binary.tar.gz"
    pack(hundred, "cifar-100-binary", binary("cifar100"))
    assert_refused(hundred.parent, f"{hundred.name} is not the official", "cifar100")
    monkeypatch.setattr(cifar, "MAX_UNPACKED", 10**5)
    pack(path, "x", {"zeros": bytes(10**6)} | binary("cifar10"))
    assert_refused(tmp_path, "has no data_batch_1.bin")


def test_an_archive_of_links_is_refused(tmp_path):
    folder = "cifar-10-batches-py"
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in SETS["cifar10"].pickled.names():
            link = tarfile.TarInfo(f"{folder}/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, f"/store/{name}"
            archive.addfile(link)
    assert_refused(tmp_path, "has no data_batch_1, data_batch_2")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pyarrow.array([], "int64"), "has no rows"),
        (pyarrow.array([1.5]), "the labels are float64"),
        (pyarrow.array(["3"]), "the labels are object"),
        (pyarrow.array([None, 3], "int64"), "the labels are float64"),
    ],
)
def test_parquet_files_without_integer_labels_are_refused(labels, message, tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "PNG")
    cells = pyarrow.array([picture.getvalue()] * len(labels), "binary")
    for split in ("train", "test"):
        table = pyarrow.table({"img": cells, "label": labels})
        parquet.write_table(table, tmp_path / f"{split}-0.parquet")
    assert_refused(tmp_path, message)


def test_a_picture_of_any_size_is_refused_in_one_line(tmp_path, recwarn):
    picture = io.BytesIO()
    Image.new("L", (12_000, 10_000)).save(picture, "PNG", compress_level=1)
    table = pyarrow.table({"img": [picture.getvalue()], "label": [1]})
    parquet.write_table(table, tmp_path / "train-0.parquet")
    parquet.write_table(table, tmp_path / "test-0.parquet")
    assert_refused(tmp_path, r"a picture is L, \(12000, 10000\)")
    assert not recwarn.list


def test_other_parquet_files_are_refused(tmp_path, monkeypatch):
    write_parquet(tmp_path / "columns", "cifar10", official, column="picture")
    assert_refused(tmp_path / "columns", "has the columns picture, label; img or image")
    write_parquet(tmp_path / "fine", "cifar100", official)
    assert_refused(tmp_path / "fine", "columns img, fine_label; img or image and label")
    write_parquet(tmp_path / "shuffled", "cifar10", lambda _, n: np.arange(n)[::-1])
    assert_refused(tmp_path / "shuffled", "55 rows of train are not cifar10 as")
    write_parquet(tmp_path / "cut", "cifar10", official)
    for file in (tmp_path / "cut").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert_refused(tmp_path / "cut", "cannot be read")
    write_parquet(tmp_path / "lonely", "cifar10", official)
    next((tmp_path / "lonely").glob("test-*")).unlink()
    assert_refused(tmp_path / "lonely", r"no test-\*\.parquet")
    table = pyarrow.table({"img": [{"bytes": b"no picture"}], "label": [1]})
    (tmp_path / "cells").mkdir()
    parquet.write_table(table, tmp_path / "cells" / "train-0.parquet")
    parquet.write_table(table, tmp_path / "cells" / "test-0.parquet")
    assert_refused(tmp_path / "cells", "cannot be read")
    table = pyarrow.table({"img": [{"bytes": None, "path": "a"}], "label": [1]})
    parquet.write_table(table, tmp_path / "cells" / "train-0.parquet")
    assert_refused(tmp_path / "cells", r"cannot be read \(a picture is missing\)")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert_refused(tmp_path / "cells", r"cnnjax\[parquet\]", kind=MissingPackageError)


def test_the_usual_places_are_searched_and_named(tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    snapshots = "hub/datasets--uoft-cs--cifar10/snapshots/abc"
    hugging_face = home / ".cache/huggingface" / snapshots
    write_parquet(hugging_face / "plain_text", "cifar10", official)
    (tmp_path / "none").mkdir()
    wanted = load(tmp_path / "none").fingerprint
    assert f"from {hugging_face}/plain_text (Parquet)" in capsys.readouterr().out
    keras = home / ".keras" / "datasets" / "cifar-10-batches-py"
    write(keras, batches("cifar10"))
    assert load("").fingerprint == wanted
    assert f"from {keras} (pickled)" in capsys.readouterr().out
    broken = tmp_path / "elsewhere" / "data" / "cifar-10-batches-py"
    write(broken, batches("cifar10") | {"data_batch_2": b""})
    assert load("").fingerprint == wanted
    out = capsys.readouterr().out
    assert "passed over: data/cifar-10-batches-py/data_batch_2 is not" in out
    assert f"from {keras} (pickled)" in out
    assert_refused(tmp_path / "elsewhere" / "data", "data_batch_2 is not the official")
    own = home / "tensorflow_datasets" / "cifar-10-batches-py"
    write(own, batches("cifar10") | {"data_batch_2": b""})
    assert load("").fingerprint == wanted
    assert f"passed over: {own}/data_batch_2 is not" in capsys.readouterr().out
    shutil.rmtree(own.parent)
    with pytest.raises(InputError, match="not prepared"):
        load(tmp_path / "none", "cifar10:2.0.0")
    assert load(tmp_path / "none", "cifar10:3.0.2").fingerprint == wanted
    # What was named and is missing is not replaced by what lies in another place.
    with pytest.raises(MissingDatasetError, match=r"not prepared in .*/typo"):
        load(tmp_path / "typo")


def test_a_folder_beside_the_named_one_is_pointed_at(name, tmp_path):
    write(tmp_path / "data" / SETS[name].pickled.folder, batches(name))
    deep = tmp_path / "data" / SETS[name].pickled.folder
    assert len(load(deep, name).test.labels) == TEST
    (tmp_path / "data" / "empty").mkdir()
    for root in (tmp_path, tmp_path / "data" / "empty"):
        words = f"{name} is not in {root}, which data.dir names, but in {tmp_path}/data"
        assert_refused(root, f"{words}; set data.dir to that", name=name)


def test_what_is_called_as_the_hub_s_files_is_not_pointed_at(tmp_path):
    table = pyarrow.table({"text": ["a"], "target": [1]})
    parquet.write_table(table, tmp_path / "train-0001.parquet")
    (tmp_path / "data").mkdir()
    with pytest.raises(MissingDatasetError, match=r"not prepared in .*/data"):
        load(tmp_path / "data")
    assert_refused(tmp_path, "has the columns text, target; img or image and label")


def test_half_a_copy_near_the_named_folder_is_not_pointed_at(tmp_path):
    prepared = tmp_path / "cifar10" / "3.0.2"
    prepared.mkdir(parents=True)
    (prepared / "features.json").write_text("{}")
    (tmp_path / "data").mkdir()
    with pytest.raises(MissingDatasetError, match=r"not prepared in .*/data"):
        load(tmp_path / "data")
    (prepared / "dataset_info.json").write_text("{}")
    assert_refused(tmp_path / "data", f"but in {tmp_path}; set data.dir to that")


def test_a_whole_copy_is_taken_from_beside_damaged_ones(tmp_path, capsys):
    """What an interrupted download, unpacking or copying leaves hides nothing."""
    known = SETS["cifar10"]
    (archive,) = known.binary.archives
    write(tmp_path / "whole" / known.binary.folder, binary("cifar10"))
    wanted = load(tmp_path / "whole").fingerprint
    root = tmp_path / "root"
    (root / "cifar10" / "3.0.2").mkdir(parents=True)
    (root / "cifar10" / "3.0.2" / "features.json").write_text("{}")
    (root / archive).write_bytes(b"half")
    batch, content = next(iter(batches("cifar10").items()))
    write(root / known.pickled.folder, {batch: content})
    with pytest.raises(InputError, match=f"{known.pickled.folder} has no"):
        load(root)
    out = capsys.readouterr().out
    assert out.count("passed over: ") == 2
    assert "has no dataset_info.json" in out and f"{archive} cannot be read" in out
    whole = root / known.pickled.archives[0]
    pack(whole, known.pickled.folder, batches("cifar10"))
    assert load(root).fingerprint == wanted
    out = capsys.readouterr().out
    assert out.count("passed over: ") == 3 and f"from {whole} (pickled)" in out


def test_all_copies_use_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "user_cache", lambda: tmp_path / "cache")
    write(tmp_path / "cifar-10-batches-py", batches("cifar10"))
    first = load(tmp_path, keep=True)

    def fail(*_):
        raise AssertionError("it was read")

    monkeypatch.setattr(cifar, "_contents", fail)
    assert load(tmp_path, keep=True).fingerprint == first.fingerprint
    with pytest.raises(AssertionError, match="it was read"):
        load(tmp_path)


@pytest.fixture
def mirror(tmp_path):
    """Serves the folder `served`; yields its address and the paths asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *_):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_mirror_gives_the_archive_which_is_kept(
    tmp_path, mirror, monkeypatch, capsys
):
    address, asked = mirror
    monkeypatch.setattr(cifar, "reachable", lambda url: url.startswith(address))
    name = "cifar-10-binary.tar.gz"

    def serve(contents):
        path, known = tmp_path / "served" / name, SETS["cifar10"]
        pack(path, "cifar-10-batches-bin", contents)
        sized = published.dataclasses.replace(known, size=path.stat().st_size)
        monkeypatch.setitem(SETS, "cifar10", sized)

    serve(binary("cifar10"))
    for i, (end, wanted) in enumerate(
        (
            ("", f"/{name}"),
            ("/", f"/{name}"),
            ("?key=a/b", f"/{name}?key=a/b"),
            (f"/{name}", f"/{name}"),
            (f"/{name}?key=a/b", f"/{name}?key=a/b"),
        )
    ):
        root, url = tmp_path / f"r{i}", f"{address}{end}"
        found = load(root, mirror=url, download=True)
        assert asked == [wanted]
        assert len(found.train.labels) == 5 * BATCH
        assert (root / cifar.MANUAL / name).is_file()
        load(root, mirror=url, download=True)
        assert len(asked) == 1
        asked.clear()
    assert capsys.readouterr().out.count("www.cs.toronto.edu cannot be reached") == 5
    with pytest.raises(InputError, match="need one that begins with http://"):
        load(tmp_path / "3", mirror="host/folder", download=True)
    with pytest.raises(MissingDatasetError, match=r"data\.download=False"):
        load(tmp_path / "3", mirror=address)
    contents = binary("cifar10") | {"test_batch.bin": bytes(3073 * TEST)}
    serve(contents)
    with pytest.raises(MissingDatasetError, match=r"test_batch\.bin is not the off"):
        load(tmp_path / "4", mirror=address, download=True)
    left = [p for p in (tmp_path / "4").rglob("*") if p.is_file()]
    assert [p.suffix for p in left] == [".lock"]
    monkeypatch.setattr(cifar, "reachable", lambda url: False)
    message = r"127\.0\.0\.1 and www\.cs\.toronto\.edu cannot be reached; put cifar-10"
    with pytest.raises(MissingDatasetError, match=message):
        load(tmp_path / "5", mirror=address, download=True)


def test_a_mirror_gives_the_files_of_other_sets(tmp_path, mirror, archive_of):
    """Here the set is prepared by TFDS, of which the mirror knows nothing."""
    address, asked = mirror
    archive_of("cifar10", tmp_path / "served" / "cifar-10-binary.tar.gz")
    download.prepare("cifar10", tmp_path / "root", True, address)
    assert len(load(tmp_path / "root").test.labels) == TEST
    assert asked == ["/cifar-10-binary.tar.gz"]
