"""What is on the machine is found where it is."""

import os

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from cnnjax.data.sources import published
from printing import present


def test_what_is_there_is_found_where_it_is(tmp_path, monkeypatch):
    for version in ("cats/1.0.0", "dogs/small/2.1.0"):
        folder = tmp_path / "named" / version
        folder.mkdir(parents=True)
        (folder / "features.json").write_text("{}")
        (folder / "dogs.tfrecord").write_bytes(b"x" * 100)
        (folder / "broken").symlink_to(tmp_path / "nowhere")
    manual = tmp_path / "named" / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "cifar.tar.gz").write_bytes(b"x" * 7)
    found = present.find(tmp_path / "named")
    assert [(one.name, one.size) for one in found] == [
        ("cats:1.0.0", 102),
        ("cifar.tar.gz", 7),
        ("dogs/small:2.1.0", 102),
    ]
    assert found[1].path == manual / "cifar.tar.gz"
    assert present.find(tmp_path / "nowhere") == []

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "set"))
    named = os.path.join(tmp_path, "named")
    usual = tmp_path / "tensorflow_datasets"
    assert present.roots(named) == [tmp_path / "named", tmp_path / "set", usual]
    assert present.roots(str(usual)) == [usual, tmp_path / "set"]


@pytest.mark.parametrize(
    ("columns", "rows", "names"),
    [
        (("img", "label"), 6, ["cifar10"]),
        (("img", "fine_label"), 6, ["cifar100"]),
        (("image", "label"), 7, []),  # MNIST's, of other numbers
        (("text", "target"), 6, []),
    ],
)
def test_parquet_files_are_of_the_set_whose_columns_and_rows_they_have(
    tmp_path, monkeypatch, columns, rows, names
):
    monkeypatch.setitem(published.COUNTS, "train", 5)
    monkeypatch.setitem(published.COUNTS, "test", 1)
    for split, count in (("train", rows - 1), ("test", 1)):
        table = pyarrow.table({column: np.zeros(count, int) for column in columns})
        parquet.write_table(table, tmp_path / f"{split}-0.parquet")
    assert [one.name for one in present.find(tmp_path)] == names
    (tmp_path / "test-0.parquet").write_bytes(b"damaged")
    assert present.find(tmp_path) == []
