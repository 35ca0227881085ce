"""Has TFDS prepare a set from archives on the machine, or download it."""

import contextlib
import io
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cnnjax.data.dataset import MissingDatasetError
from cnnjax.data.sources.hosts import at_mirror, estimate, reachable
from cnnjax.data.tensorflow_import import import_tensorflow
from cnnjax.errors import InputError

# An error message names at most this many files; MNIST has four.
MAX_DESCRIBED = 4


def prepare(name: str, root: Path, download: bool, mirror: str = "") -> None:
    """Prepares a data set in TFDS's data folder.

    If all files that TFDS registers for the set are in `root/downloads/manual/`, they
    are used, after a check of their SHA-256, and nothing is downloaded. Otherwise they
    are downloaded if that is allowed: from the mirror to that folder, if the mirror has
    them all, or else by TFDS if the host answers.

    Args:
        name: TFDS's name, `NAME`, `NAME/CONFIG` or `NAME:VERSION`.
        root: TFDS's data folder; created if it does not exist.
        download: whether the network may be used.
        mirror: address of a folder that has the files under their registered names; ""
            for none.

    Raises:
        MissingDatasetError: the set is not available.
        InputError: a file in `root/downloads/manual/` is not the registered one.
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
    if download and mirror:
        _fetch(files, manual, mirror)
    if files and all((manual / str(i.filename)).is_file() for i in files.values()):
        for info in files.values():
            _verify(info, manual / info.filename)
        print(f"preparing {name} in {root} from {manual}: a minute or two", flush=True)
        _run_tfds(name, root, only_registered=True)
        return
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
    """Returns a text about where to download a set and where to put its files.

    `name` is TFDS's, without configuration or version; `root` is TFDS's data folder.
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
    """Returns the first and last line of an error's message.

    In between, TFDS prints the whole example on which it failed; TensorFlow puts its
    name of the operation before it.
    """
    text = re.sub(r"\{\{.*?\}\}", "", str(error))
    lines = text.strip().splitlines() or [type(error).__name__]
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


def _fetch(files: dict[str, Any], manual: Path, mirror: str) -> None:
    """Downloads the files from a mirror; says so and stops if it lacks one."""
    # It imports requests, which only a download needs.
    from cnnjax.data.sources.fetching import fetch

    for info in files.values():
        target = manual / str(info.filename)
        url = at_mirror(mirror, str(info.filename))
        if not target.is_file():
            try:
                fetch([url], target, partial(_verify, info), int(info.size))
            except MissingDatasetError as error:
                print(f"not taken from the mirror: {error}", flush=True)
                return


def _verify(info: Any, path: Path) -> None:
    """Compares checksums before TFDS does, to report which file differs and how."""
    from tensorflow_datasets.core.download import checksums

    actual = checksums.compute_url_info(path)
    if (actual.size, actual.checksum) != (info.size, info.checksum):
        raise InputError(
            f"{path} is not the file that TFDS registers: it has {actual.size:d} "
            f"bytes and SHA-256 {actual.checksum}, needed are {int(info.size)} "
            f"bytes and SHA-256 {info.checksum}; copy or download it again"
        )


def _run_tfds(name: str, root: Path, only_registered: bool) -> None:
    """Runs `download_and_prepare`, and removes partial results if it fails.

    `only_registered` refuses any address without a registered checksum, so that
    nothing is downloaded if all registered files are present.
    """
    import_tensorflow(datasets=True)
    import tensorflow_datasets as tfds

    from cnnjax.data.sources.fetching import locked

    base = name.partition(":")[0].partition("/")[0]
    extracted = root / "downloads" / "extracted"
    folders = (root / base, extracted, extracted.parent, root)
    made_here = [folder for folder in folders if not folder.exists()]
    if only_registered:
        # The bars would show a download, although there is none.
        tfds.disable_progress_bar()
    try:
        # `prepare` has already printed what is happening.
        with locked(root / base), contextlib.redirect_stdout(io.StringIO()):
            before = set(extracted.glob("incomplete.*"))
            try:
                builder = tfds.builder(name, data_dir=root)
                # TFDS would take an empty folder for a prepared set.
                with contextlib.suppress(OSError):
                    Path(builder.data_dir).rmdir()
                config = tfds.download.DownloadConfig(
                    force_checksums_validation=only_registered
                )
                # It does nothing if the process that held the lock has prepared it.
                builder.download_and_prepare(download_config=config)
            except BaseException:
                for left in set(extracted.glob("incomplete.*")) - before:
                    shutil.rmtree(left, ignore_errors=True)
                if root in made_here:  # Who waits sees that this file is gone.
                    (root / f".{base}.lock").unlink(missing_ok=True)
                for folder in made_here:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
                raise
    except Exception as error:
        raise InputError(
            f"TFDS could not prepare {name} in {root} ({one_line(error)}); its files "
            "must be whole and the folder writable; mend that and try again"
        ) from error
    finally:
        tfds.enable_progress_bar()
