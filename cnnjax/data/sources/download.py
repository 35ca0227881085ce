"""Has TFDS prepare a set: from archives put there by hand, or over the network."""

import contextlib
import io
import shutil
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cnnjax.data.dataset import MissingDatasetError
from cnnjax.data.tensorflow_import import import_tensorflow
from cnnjax.errors import InputError

# Files that a message names one by one; MNIST has four.
MAX_DESCRIBED = 4

# What the CIFAR-10 page offers first; it is unpickled by whoever reads it.
PICKLED_ARCHIVES = {"cifar10": "cifar-10-python.tar.gz"}


def prepare(name: str, root: Path, download: bool) -> None:
    """Prepares a set in TFDS's data dir.

    Where all files that TFDS registers for the set lie in `root/downloads/manual/`,
    they are used and nothing is downloaded; TFDS verifies their checksums before it
    unpacks them. Otherwise they are downloaded, if allowed and if their host answers.

    Args:
        name: as TFDS knows it, `NAME`, `NAME/CONFIG` or `NAME:VERSION`.
        root: TFDS's data dir; made where it does not exist.
        download: whether the network may be used.

    Raises:
        MissingDatasetError: the set cannot be had.
        InputError: a file put there by hand is not the one that is needed.
    """
    try:
        import tensorflow_datasets as tfds

        base = name.partition(":")[0].partition("/")[0]
        builder_class = tfds.builder_cls(base)
    except ImportError as error:
        raise MissingDatasetError(
            f"{name} is not prepared in {root}, and TensorFlow Datasets is not "
            f"installed ({error.name}); install it or use another data.source"
        ) from error
    except tfds.core.DatasetNotFoundError as error:
        raise MissingDatasetError(
            f"{name} is not prepared in {root} and TFDS knows no set of that name; "
            f"prepared data are needed in {root / base}/VERSION/; set data.dir to the "
            "folder that has them, or correct data.name"
        ) from error
    files = builder_class.url_infos or {}
    manual = root / "downloads" / "manual"
    wanted = f"put {_describe(files)} into {manual}/" if files else "prepare it there"
    advice = f"{wanted}, or set data.dir to the folder that has {base}/VERSION/"
    if files and all((manual / str(i.filename)).is_file() for i in files.values()):
        _verify(files, manual)
        print(f"preparing {name} in {root} from {manual}: a minute or two", flush=True)
        _run_tfds(name, root, only_registered=True)
        return
    pickled = PICKLED_ARCHIVES.get(base)
    if pickled:
        _refuse_pickled(pickled, (manual, manual.parent, root), wanted)
    if not download:
        raise MissingDatasetError(
            f"{name} is not prepared in {root} and data.download=False; {advice}"
        )
    if not files:
        raise MissingDatasetError(
            f"{name} is not prepared in {root} and TFDS registers no address for it; "
            f"{advice}"
        )
    url = next(iter(files))
    if not reachable(url):
        raise MissingDatasetError(
            f"{name} is not prepared in {root} and {urlsplit(url).hostname} cannot be "
            f"reached; {advice}"
        )
    size = sum(int(info.size) for info in files.values())
    print(f"downloading {name} to {root}: {estimate(url, size)}", flush=True)
    try:
        _run_tfds(name, root, only_registered=False)
    except InputError as error:
        raise MissingDatasetError(f"{error}; or {advice}") from error


def where_to_get(name: str, root: Path) -> str:
    """Says where a set that TFDS knows comes from, and where to put its files.

    Args:
        name: as TFDS knows it, without configuration or version.
        root: TFDS's data dir.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        return "TensorFlow Datasets, which knows where from, is not installed"
    files = tfds.builder_cls(name).url_infos or {}
    homes = sorted({url.rpartition("/")[0] for url in files})
    return (
        f"from {', '.join(homes)}: put {_describe(files)} into"
        f" {root / 'downloads' / 'manual'}/"
    )


def one_line(error: BaseException) -> str:
    """Returns an error's message, or of a long one its first and last line.

    TFDS writes the example it failed on in between.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ... ".join(
        line.strip()[:200] for line in dict.fromkeys(lines[:1] + lines[-1:])
    )


def _describe(files: dict[str, Any]) -> str:
    described = [
        f"{info.filename} ({int(info.size)} bytes, SHA-256 {info.checksum})"
        for info in files.values()
    ]
    more = len(described) - MAX_DESCRIBED
    return ", ".join(described[:MAX_DESCRIBED]) + (f" and {more} more" * (more > 0))


def _refuse_pickled(pickled: str, folders: tuple[Path, ...], wanted: str) -> None:
    for folder in folders:
        if (folder / pickled).exists():
            raise InputError(
                f"{folder / pickled} holds pickled data, which are never loaded; the "
                f"binary archive is needed: {wanted}"
            )


def _verify(files: dict[str, Any], manual: Path) -> None:
    """Compares checksums as TFDS will, to say which file and how it differs."""
    from tensorflow_datasets.core.download import checksums

    for info in files.values():
        path = manual / info.filename
        actual = checksums.compute_url_info(path)
        if actual != info:
            raise InputError(
                f"{path} is not the file that TFDS registers: it has {actual.size:d} "
                f"bytes and SHA-256 {actual.checksum}, needed are {int(info.size)} "
                f"bytes and SHA-256 {info.checksum}; copy or download it again"
            )


def _run_tfds(name: str, root: Path, only_registered: bool) -> None:
    """Runs `download_and_prepare`; leaves nothing half-made behind.

    `only_registered` refuses any address without a registered checksum, so that
    nothing is downloaded where all registered files are there.
    """
    import_tensorflow()
    import tensorflow_datasets as tfds

    base = name.partition(":")[0].partition("/")[0]
    extracted = root / "downloads" / "extracted"
    folders = (root / base, extracted, extracted.parent, root)
    made_here = [folder for folder in folders if not folder.exists()]
    before = set(extracted.glob("incomplete.*"))
    if only_registered:
        # Its bars show a download that does not happen.
        tfds.disable_progress_bar()
    try:
        # What is going on has been said already.
        with contextlib.redirect_stdout(io.StringIO()):
            builder = tfds.builder(name, data_dir=root)
            # An empty folder passes for a prepared set.
            with contextlib.suppress(OSError):
                Path(builder.data_dir).rmdir()
            config = tfds.download.DownloadConfig(
                force_checksums_validation=only_registered
            )
            builder.download_and_prepare(download_config=config)
    except BaseException as error:
        for left in set(extracted.glob("incomplete.*")) - before:
            shutil.rmtree(left, ignore_errors=True)
        for folder in made_here:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if not isinstance(error, Exception):
            raise
        raise InputError(
            f"TFDS could not prepare {name} in {root} ({one_line(error)}); its files "
            "must be whole and the folder writable; mend that and try again"
        ) from error
    finally:
        tfds.enable_progress_bar()


# Deciding whether there is a network takes at most this long, name look-up included.
PROBE_SECONDS = 8.0

# Bytes a second, slowest and fastest. CIFAR's host has been slow since June 2026
# (pytorch/vision#9536, keras#23699); for others a common range is assumed.
HOST_RATES = {"www.cs.toronto.edu": (55e3, 85e3)}
USUAL_RATES = (1e6, 10e6)


def reachable(url: str) -> bool:
    """Says within `PROBE_SECONDS` whether the host of a URL accepts connections.

    Where the environment names a proxy for the URL, it is asked about the proxy.
    """
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        # Without a scheme it speaks HTTP, as requests has it, which downloads.
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    answers = []

    def connect() -> None:
        with contextlib.suppress(OSError, ValueError):  # of a port that is none
            port = parts.port or (443 if parts.scheme == "https" else 80)
            address = (parts.hostname, port)
            with socket.create_connection(address, timeout=PROBE_SECONDS):
                answers.append(True)

    # A name look-up has no timeout of its own: it is left behind in its thread.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)


def estimate(url: str, size: int) -> str:
    """Says how long `size` bytes take at the rates reported for the host.

    minutes = size / rate / 60, at the fastest and the slowest rate.
    """
    host = urlsplit(url).hostname or ""
    slow, fast = HOST_RATES.get(host, USUAL_RATES)
    return (
        f"{size / 1e6:.0f} MB from {host}, about {size / fast / 60:.0f} to "
        f"{max(1, size / slow / 60):.0f} minutes at {fast / 1e3:.0f} to "
        f"{slow / 1e3:.0f} kB/s"
    )
