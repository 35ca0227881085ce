"""CIFAR-10 itself in every form, made from the prepared set: the same runs."""

import hashlib
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.data.sources import cifar, tfds
from cnnjax.data.sources.published import CIFAR10

DATA = Path(os.environ.get("CNNJAX_DATA_DIR", "../shared/data/tensorflow_datasets"))


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Returns ({form: folder}, {pickled file: its MD5})."""
    if not (DATA / "cifar10").is_dir():
        pytest.skip(f"cifar10 is not in {DATA}; set CNNJAX_DATA_DIR")
    root = tmp_path_factory.mktemp("forms")
    dataset = tfds.load("cifar10", str(DATA), False)
    batches = {}
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        official = np.argsort(cifar.tfds_order(name, len(split.labels)))
        planes = split.images[official].transpose(0, 3, 1, 2)
        records = np.column_stack(
            [split.labels[official].astype(np.uint8), planes.reshape(len(planes), -1)]
        )
        files = CIFAR10.binary.digests[name]
        batches |= zip(files, np.split(records, len(files)), strict=True)

    folder = root / "binary" / CIFAR10.binary.folder
    folder.mkdir(parents=True)
    for name, records in batches.items():
        (folder / name).write_bytes(records.tobytes())

    (root / "archive").mkdir()
    path = root / "archive" / CIFAR10.binary.archives[0]
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, CIFAR10.binary.folder)

    folder = root / "pickled" / CIFAR10.pickled.folder
    folder.mkdir(parents=True)
    digests = {}
    for name, records in zip(CIFAR10.pickled.names(), batches.values(), strict=True):
        batch = {b"data": records[:, 1:].copy(), b"labels": records[:, 0].tolist()}
        content = pickle.dumps(batch, 2)
        digests[name] = hashlib.md5(content).hexdigest()
        (folder / name).write_bytes(content)

    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (root / "hub").mkdir()
    parts = list(batches.values())
    for name, some in (
        ("train", [parts[i] for i in (3, 2, 1, 4, 0)]),
        ("test", parts[5:]),
    ):
        records = np.concatenate(some)
        cells = []
        for planes in records[:, 1:].reshape(-1, 3, 32, 32):
            file = io.BytesIO()
            Image.fromarray(planes.transpose(1, 2, 0)).save(
                file, "PNG", compress_level=1
            )
            cells.append({"bytes": file.getvalue(), "path": None})
        table = pyarrow.table({"img": cells, "label": records[:, 0].astype(np.int64)})
        parquet.write_table(table, root / "hub" / f"{name}-00000-of-00001.parquet")
    found = {path.name: path for path in root.iterdir()}
    return {"prepared": DATA.resolve(), **found}, digests


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(900)
def test_all_forms_train_alike(forms, call, tmp_path, monkeypatch):
    folders, digests = forms
    assert len(folders) == 5
    # Our own pickles take the place of the official ones, whose file names are unknown.
    for split in CIFAR10.pickled.digests.values():
        for name in split:
            monkeypatch.setitem(split, name, digests[name])
    runs = {}
    for form, folder in folders.items():
        for cache in (False, True, True):  # read, kept, and read from the cache
            workdir = tmp_path / f"{form}{len(runs)}"
            done = call(
                "cifar10.py",
                "--config.data.name=cifar10",
                f"--config.data.dir={folder}",
                f"--config.data.cache={cache}",
                "--config.train.steps=20",
                "--config.train.log_every=1",
                "--config.eval.batch_size=1000",
                f"--workdir={workdir}",
            )
            assert (done.returncode, done.stderr) == (0, ""), form
            assert f"reading cifar10 from {folder}" in done.stdout
            lines = (workdir / "metrics.jsonl").read_text().splitlines()
            losses = [json.loads(line).get("train/loss") for line in lines]
            final = json.loads((workdir / "final_metrics.json").read_text())
            manifest = json.loads((workdir / "manifest.json").read_text())
            assert len(losses) == 21
            key = losses, final["test/correct"], manifest["data"]
            runs[form, len(runs)] = key
    assert len(set(map(str, runs.values()))) == 1, runs
