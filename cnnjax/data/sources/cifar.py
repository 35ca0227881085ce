"""CIFAR-10 and CIFAR-100 in the forms in which people have them.

- binary: `cifar-10-binary.tar.gz`, or unpacked in `cifar-10-batches-bin/`;
- pickled: `cifar-10-python.tar.gz`, or unpacked in `cifar-10-batches-py/`, as
  torchvision and Keras leave it behind;
- Parquet: `train-*.parquet` and `test-*.parquet`, as on the Hugging Face hub.

Each gives the data set that TensorFlow Datasets prepares, in the same order.
"""

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np

from cnnjax.data.cache import Copy
from cnnjax.data.dataset import Dataset, MissingDatasetError, Split, make_dataset
from cnnjax.data.sources import parquet, pickled
from cnnjax.data.sources.hosts import at_mirror, reachable
from cnnjax.data.sources.published import COUNTS, SETS, SIDE, Form, Published
from cnnjax.errors import InputError, one_line
from cnnjax.runtime import backend

PARQUET = "Parquet"
VERSION = "3.0.2"  # TFDS's number for these pictures in this order

# Where TFDS takes files from that it cannot download, and where they are kept here.
MANUAL = Path("downloads", "manual")

# The largest official file has 155 MB, the largest archive 178 MB when unpacked.
MAX_FILE, MAX_UNPACKED = 2**28, 2**30

# Images uint8 [n, 32, 32, 3] and integer labels [n].
Pictures = tuple[np.ndarray, np.ndarray]


def copies(place: Path, published: Published) -> Iterator[Copy]:
    """Yields the copies of the set in a folder, in the order given above.

    `place` may be the folder of the unpacked files itself.
    """
    for form, what in ((published.binary, "binary"), (published.pickled, "pickled")):
        for path in _candidates(place, form):
            names = form.names()
            there = [(path / name).is_file() for name in names]
            # A folder of another name is the set's only if it has the first file.
            if path.is_file() or there[0] or (path.name == form.folder and any(there)):
                inside = [path] if path.is_file() else [path / name for name in names]
                read = partial(_read, published, form, path)
                yield Copy(path, what, tuple(inside), read)
    if found := parquet.find(place, published.hub[1]):
        files = (*found["train"], *found["test"])
        read = partial(_read_parquet, published, found)
        yield Copy(files[0].parent, PARQUET, files, read)


def _candidates(place: Path, form: Form) -> Iterator[Path]:
    yield place / form.folder
    yield place / f"{form.folder}-target" / form.folder  # of Keras 3
    if place.is_dir():
        yield place
    for archive in form.archives:
        yield place / archive
        yield place / MANUAL / archive


def usual_places() -> list[Path]:
    """Returns the folders in which copies are looked for besides the data folder.

    They are TFDS's, torchvision's customary `data/`, Keras's, and the cache of the
    Hugging Face hub.
    """
    home = backend.home()
    hugging_face = os.environ.get("HF_HOME") or home / ".cache" / "huggingface"
    hub = os.environ.get("HF_HUB_CACHE") or Path(hugging_face, "hub")
    own = os.environ.get("TFDS_DATA_DIR") or home / "tensorflow_datasets"
    hub, own = (Path(os.path.expanduser(path)) for path in (hub, own))
    return [
        own,
        Path("data"),
        home / ".keras" / "datasets",
        *(
            snapshot
            for published in SETS.values()
            if os.path.isdir(hub)  # and in folders that may be searched
            for snapshot in sorted(
                hub.glob(f"datasets--{published.hub[0].replace('/', '--')}/snapshots/*")
            )
        ),
    ]


def download(published: Published, root: Path, mirror: str) -> Copy:
    """Downloads the binary archive, verifies it, and returns it.

    Args:
        published: the wanted set.
        root: data folder; the archive goes to `downloads/manual/` in it.
        mirror: address of the archive, or of the folder that has it, which is tried
            before the official one; "" for none.

    Raises:
        MissingDatasetError: no address gives the archive.
    """
    (archive,) = published.binary.archives
    urls = [published.url]
    if mirror:
        urls.insert(0, at_mirror(mirror, archive))
    # What has no host is no address, which `fetch` says.
    asked = [url for url in urls if not urlsplit(url).hostname or reachable(url)]
    silent = [str(urlsplit(url).hostname) for url in urls if url not in asked]
    if not asked:
        raise MissingDatasetError(
            f"{published.name} is not prepared in {root} and {' and '.join(silent)}"
            f" cannot be reached; {advice(published, root)}"
        )
    for host in silent:
        print(f"{host} cannot be reached", flush=True)

    target, read = root / MANUAL / archive, partial(_read, published, published.binary)

    def verify(path: Path) -> None:
        read(path, with_test=True)

    # It imports requests, which only a download needs.
    from cnnjax.data.sources.fetching import fetch

    try:
        fetch(asked, target, verify, published.size)
    except MissingDatasetError as error:
        raise MissingDatasetError(f"{error}; or {advice(published, root)}") from error
    return Copy(target, "binary", (target,), partial(read, target))


def advice(published: Published, root: Path) -> str:
    """Returns what to do where the set is missing, as the end of a message."""
    binary, pickles = published.binary, published.pickled
    return (
        f"put {binary.archives[0]} ({published.size} bytes, SHA-256 {published.sha256})"
        f" into {root / MANUAL}/, or set data.dir to a folder with it,"
        f" {binary.folder}/, {pickles.archives[0]}, {pickles.folder}/, train-*.parquet"
        f" or {published.name}/VERSION/ of TFDS"
    )


def _read(published: Published, form: Form, place: Path, with_test: bool) -> Dataset:
    contents = _contents(place, form.names(with_test=with_test))
    if place.is_file() and form is published.binary and "" in _digests(form).values():
        with place.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _verify(place, digest, published.sha256, "sha256")
    where = {n: place / n if place.is_dir() else f"{place}, {n}" for n in contents}
    for name, content in contents.items():  # all of them, before the first is read
        digest = hashlib.new(form.algorithm, content, usedforsecurity=False).hexdigest()
        _verify(where[name], digest, _digests(form)[name] or digest, form.algorithm)
    decoded = {}
    for name, content in contents.items():
        try:
            if form is published.pickled:
                decoded[name] = pickled.decode(content, published.label_key)
            else:
                decoded[name] = _decode(content, published.label_bytes)
        except InputError as error:
            raise InputError(f"{where[name]} {error}") from error
    splits = {}
    for split, digests in form.digests.items():
        parts = [decoded[name] for name in digests if name in decoded]
        if parts:
            planes, labels = map(np.concatenate, zip(*parts, strict=True))
            images = planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
            splits[split] = images, labels
    return _settled(published, place, splits)


def _digests(form: Form) -> dict[str, str]:
    return form.digests["train"] | form.digests["test"]


def _contents(place: Path, names: list[str]) -> dict[str, bytes]:
    """Returns the content of named files in a folder or in a .tar.gz archive."""
    contents = {}
    try:
        if place.is_dir():
            for name in names:
                path = place / name
                if path.is_file() and path.stat().st_size <= MAX_FILE:
                    contents[name] = path.read_bytes()
        else:
            unpacked = 0
            with tarfile.open(place, "r:gz") as archive:
                for member in archive:
                    unpacked += member.size
                    if unpacked > MAX_UNPACKED:
                        break
                    name = PurePosixPath(member.name).name
                    is_wanted = name in names and member.isfile()  # not a link
                    file = archive.extractfile(member) if is_wanted else None
                    if file and member.size <= MAX_FILE:
                        contents[name] = file.read()
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise InputError(
            f"{place} cannot be read ({one_line(error)}); the whole of it is needed;"
            " copy or download it again"
        ) from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise InputError(
            f"{place} has no {', '.join(missing)}, or not of its size; the official"
            " files are needed; copy or download it again"
        )
    return contents


def _verify(what: object, digest: str, needed: str, algorithm: str) -> None:
    if digest != needed:
        kind = "MD5" if algorithm == "md5" else "SHA-256"
        raise InputError(
            f"{what} is not the official file and is not read: its {kind} is"
            f" {digest}, needed is {needed}; copy or download it again"
        )


def _decode(content: bytes, label_bytes: int) -> Pictures:
    values, record = np.frombuffer(content, np.uint8), label_bytes + 3 * SIDE * SIDE
    if len(values) % record:
        raise InputError(
            f"has {len(values)} bytes, a multiple of {record} is needed; copy or"
            " download it again"
        )
    records = values.reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _read_parquet(
    published: Published, files: Mapping[str, list[Path]], with_test: bool
) -> Dataset:
    splits = {}
    for split in ("train", "test") if with_test else ("train",):
        if not files[split]:
            raise InputError(
                f"{files['train'][0].parent} has no {split}-*.parquet; both splits are"
                " needed; download it too"
            )
        found = parquet.read(files[split], published.label_column, SIDE)
        splits[split] = _in_official_order(published, split, *found, files[split][0])
    return _settled(published, files["train"][0].parent, splits)


def _in_official_order(
    published: Published, split: str, images: np.ndarray, labels: np.ndarray, file: Path
) -> Pictures:
    """Returns the rows in the order of the binary files, proven by their digests.

    The rows may be the binary files one after the other in any order (the hub has them
    as they lie in the pickled archive), or as in a prepared TFDS set.
    """
    digests = list(published.binary.digests[split].values())
    if not all(digests):
        return images, labels  # CIFAR-100 has one file a split, so one order
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    records = np.column_stack([labels.astype(np.uint8), planes])
    rows = np.arange(len(labels))
    for order in (rows, np.argsort(tfds_order(split, len(rows)))):
        blocks = np.array_split(order, len(digests))
        found = {
            hashlib.sha256(records[block].data).hexdigest(): block for block in blocks
        }
        if found.keys() == set(digests):
            official = np.concatenate([found[digest] for digest in digests])
            return images[official], labels[official]
    raise InputError(
        f"{file}: the {len(labels)} rows of {split} are not {published.name} as"
        " published; the same pictures and labels in the hub's order are needed;"
        " download it again"
    )


def _settled(
    published: Published, place: Path, splits: Mapping[str, Pictures]
) -> Dataset:
    made = {}
    for split, (images, labels) in splits.items():
        if len(labels) != COUNTS[split]:
            raise InputError(
                f"{place} has {len(labels)} pictures for {split}, {COUNTS[split]} are"
                " needed; copy or download it again"
            )
        order = tfds_order(split, len(labels))
        made[split] = Split(images[order], labels[order])
    return make_dataset(
        published.name,
        VERSION,
        made["train"],
        made.get("test"),
        published.class_names,
    )


def tfds_order(split: str, count: int) -> np.ndarray:
    """Returns the order in which TFDS writes examples: by the MD5 of split and index.

    Every other form takes it, so that runs on prepared sets need not change.
    Source: `tensorflow_datasets.core.hashing`.

    Returns:
        int64 [count]; position i holds the official example with number result[i].
    """
    digests = [
        hashlib.md5(f"{split}{i}".encode(), usedforsecurity=False).digest()
        for i in range(count)
    ]
    return np.array(sorted(range(count), key=digests.__getitem__))
