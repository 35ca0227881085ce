"""The cache returns what was read, and reads again whatever is not as it was."""

import os

import numpy as np
import pytest

from cnnjax.data import cache
from cnnjax.data.cache import Copy
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.errors import InputError


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Gives the cache a folder of its own, and returns (): its entries."""
    monkeypatch.setattr(cache, "user_cache", lambda: tmp_path / "cache")
    return lambda: sorted((tmp_path / "cache" / "data").glob("*"))


@pytest.fixture
def copy(tmp_path):
    """Returns a copy whose file decides its content and which counts its readings."""
    file = tmp_path / "file"
    file.write_text("1")

    def read(with_test):
        read.times += 1
        images = np.full((6, 4, 5, 3), int(file.read_text()), np.uint8)
        split = Split(images, np.arange(6) % 3)
        return make_dataset("set", "1", split, split if with_test else None, ("a",) * 3)

    read.times = 0
    return Copy(file, "a form", (file,), read)


def load(copy, *, with_test=True, keep=True):
    return cache.load(copy, with_test=with_test, keep=keep)


def assert_same(one, other):
    for split in ("train", "test"):
        for part in ("images", "labels"):
            a, b = (getattr(getattr(d, split), part) for d in (one, other))
            np.testing.assert_array_equal(a, b)
            assert (a.dtype, a.flags.c_contiguous) == (b.dtype, True)
    assert (one.name, one.version, one.class_names, one.fingerprint) == (
        *(other.name, other.version, other.class_names),
        other.fingerprint,
    )


def test_a_second_start_reads_the_cache(copy, entries):
    first = load(copy)
    assert_same(load(copy), first)
    assert copy.read.times == 1 and len(entries()) == 1
    only_train = load(copy, with_test=False)
    assert_same(load(copy, with_test=False), only_train)
    assert len(only_train.test.labels) == 0 and copy.read.times == 2


def test_without_the_cache_nothing_is_kept(copy, entries):
    assert_same(load(copy, keep=False), load(copy, keep=False))
    assert copy.read.times == 2 and entries() == []


@pytest.mark.parametrize("what", ["content", "times only", "another file"])
def test_what_changed_is_read_again(copy, what, tmp_path):
    load(copy)
    if what == "content":
        before = copy.path.stat()
        copy.path.write_text("2")  # of the same size, and with the same time
        os.utime(copy.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "times only":
        os.utime(copy.path, ns=(0, 0))
    else:
        (tmp_path / "other").write_text("3")
        copy = Copy(copy.path, copy.form, (*copy.files, tmp_path / "other"), copy.read)
    value = 2 if what == "content" else 1
    assert load(copy).train.images[0, 0, 0, 0] == value
    assert copy.read.times == 2


def test_a_file_that_changes_while_it_is_read_is_not_kept(copy, entries):
    def read(with_test):
        dataset = copy.read(with_test)
        copy.path.write_text("12")
        return dataset

    load(Copy(copy.path, copy.form, copy.files, read))
    assert entries() == []


FILES = (*(f"{name}.npy" for name in cache.ARRAYS), cache.ABOUT)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage", ["flip first", "flip in header", "flip last", "cut", "empty", "gone"]
)
def test_a_damaged_entry_is_made_again(copy, entries, name, damage):
    first = load(copy)
    file = entries()[0] / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        if damage.startswith("flip"):
            # NumPy's header ends in `), }`, where a flip opens a bracket.
            place = {"flip first": 2, "flip last": -2}.get(damage, content.rfind(b")"))
            content[place] ^= 1
        file.write_bytes({"cut": content[:-3], "empty": b""}.get(damage, content))
    assert_same(load(copy), first)
    assert copy.read.times == 2
    assert_same(load(copy), first)
    assert copy.read.times == 2


def test_the_least_recently_used_go_first(copy, entries, tmp_path, monkeypatch):
    others = []
    for i in range(3):
        path = tmp_path / f"file{i}"
        path.write_text(str(i))
        others.append(Copy(path, copy.form, (path,), copy.read))
        load(others[-1])
        os.utime(max(entries(), key=lambda entry: entry.stat().st_mtime), (i, i))
    load(others[0])  # used just now, so that the second is the oldest
    size = sum(file.stat().st_size for file in entries()[0].iterdir())
    monkeypatch.setattr(cache, "MAX_CACHE_BYTES", int(3.5 * size))
    stray = entries()[0].with_name(".DS_Store")
    stray.touch()
    load(copy)
    stray.unlink()
    assert len(entries()) == 3
    before = copy.read.times
    load(others[0]), load(others[2])
    assert copy.read.times == before
    load(others[1])
    assert copy.read.times == before + 1
    monkeypatch.setattr(cache, "MAX_CACHE_BYTES", 100)
    load(copy, with_test=False)
    assert len(entries()) == 3  # what does not fit is not kept


@pytest.mark.parametrize("obstacle", ["file in place of folder", "not writable"])
def test_a_cache_that_cannot_be_written_is_no_error(copy, tmp_path, entries, obstacle):
    if obstacle == "not writable":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (tmp_path / "cache").mkdir(mode=0o500)
    else:
        (tmp_path / "cache").write_text("")
    assert_same(load(copy), load(copy))
    assert copy.read.times == 2


def test_an_error_of_the_source_goes_upwards(copy, entries):
    copy.path.write_text("300 is no uint8")
    with pytest.raises(ValueError, match="invalid literal"):
        load(copy)
    assert entries() == []
    with pytest.raises(InputError, match="out of range"):
        load(
            Copy(
                copy.path,
                "",
                (),
                lambda _: make_dataset(
                    "x",
                    "",
                    *[Split(np.zeros((1, 4, 4, 3), np.uint8), np.ones(1, int))] * 2,
                    ("a",),
                ),
            )
        )
