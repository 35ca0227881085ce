"""Whatever is in a file, reading it gives a result or the documented error.

`pytest -m slow tests/test_fuzz.py` tries fifty times as many.
"""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnjax import config
from cnnjax.data.sources import npz, pictures
from cnnjax.errors import InputError, RunError
from cnnjax.workdir.checkpoints import Checkpoints
from cnnjax.workdir.integrity import seal

RUN = {"config": "abc", "data": "def", "seed": 7}
LIKE = {"x": np.zeros(10)}

EXAMPLES = pytest.mark.parametrize(
    "examples", [60, pytest.param(3000, marks=pytest.mark.slow)]
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def fuzz(examples, test, *strategies):
    """Calls `test` with what is drawn; the same every time."""
    checks = list(HealthCheck)
    limits = settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=checks,
    )
    limits(given(*strategies)(test))()


def damaged(whole):
    """Draws other bytes, those of `whole` with some changed, or its beginning."""
    edits = st.lists(
        st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=5
    )

    def change(edits, end):
        content = bytearray(whole)
        for at, byte in edits:
            content[at] = byte
        return bytes(content[:end])

    ends = st.just(len(whole)) | st.integers(0, len(whole))
    return st.builds(change, edits, ends) | st.binary(max_size=200)


def npz_bytes(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@EXAMPLES
def test_npz_files(tmp_path, examples):
    file = tmp_path / "a.npz"
    images = np.zeros((4, 3, 3), np.uint8)
    labels = np.array([0, 1, 0, 1])
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    loaded = []

    def load(content):
        file.write_bytes(content)
        try:
            loaded.append(npz.load(file).train.images.shape)
        except InputError as error:
            assert "\n" not in str(error)

    fuzz(examples, load, damaged(npz_bytes(**arrays)))
    assert (4, 3, 3, 1) in loaded

    def load_array(content):
        """The checksum of an archive is right, and its array is not."""
        with zipfile.ZipFile(file, "w") as archive:
            for key in npz.KEYS:
                archive.writestr(f"{key}.npy", content)
        load(file.read_bytes())

    stream = io.BytesIO()
    np.save(stream, images)
    fuzz(examples, load_array, damaged(stream.getvalue()))


@EXAMPLES
@pytest.mark.parametrize("form", pictures.FORMATS)
def test_pictures(tmp_path, form, examples):
    file = tmp_path / "a"
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, form)
    read = []

    def load(content):
        file.write_bytes(content)
        try:
            read.append(pictures.read_picture(file, 8, "RGB").shape)
        except InputError as error:
            assert "\n" not in str(error)

    fuzz(examples, load, damaged(stream.getvalue()))
    assert set(read) == {(8, 8, 3)}


@EXAMPLES
def test_stored_configurations(examples):
    whole = json.loads(json.dumps(config.default_config("CifarCNN").to_dict()))
    names = st.sampled_from([*whole, *whole["optim"], "name", "epochs", "a.b", ""])
    nested = st.dictionaries(names, json_values, max_size=3)
    read = []

    def load(change, section, field, value):
        values = whole | change
        if isinstance(values.get(section), dict) and field in values[section]:
            values |= {section: values[section] | {field: value}}
        try:
            read.append(config.from_stored(values).to_dict())
        except InputError as error:
            assert str(error).startswith(("got ", "a "))

    changes = st.just({}) | st.dictionaries(names, json_values | nested, max_size=2)
    fuzz(examples, load, changes, names, names, json_values)
    assert config.default_config("CifarCNN").to_dict() in read


@EXAMPLES
def test_what_is_said_about_a_checkpoint(tmp_path, examples, capfd):
    with Checkpoints(tmp_path, run=RUN) as checkpoints:
        checkpoints.save(1, {"x": np.arange(10.0)}, {"a": 1}, score=0.5)
    file = tmp_path / "1" / "meta" / "metadata"
    whole = file.read_bytes()
    meta = json.loads(whole)
    del meta["seal"]
    restored = []

    def load(content):
        file.write_bytes(content)
        try:
            with Checkpoints(tmp_path, run=RUN, read_only=True) as checkpoints:
                for restore in (checkpoints.restore_latest, checkpoints.restore_best):
                    found = restore(LIKE)
                    if found is not None:
                        restored.append(found[0]["x"].tolist())
        except (InputError, RunError) as error:
            assert "\n" not in str(error)

    fuzz(examples, load, damaged(whole))

    def load_sealed(changes):
        """Written by someone who knows how."""
        changed = meta | changes
        load(json.dumps(changed | {"seal": seal(changed)}).encode())

    names = st.sampled_from(sorted(meta))
    fuzz(examples, load_sealed, st.dictionaries(names, json_values, max_size=2))
    assert {tuple(x) for x in restored} == {tuple(range(10))}
    assert "Traceback" not in capfd.readouterr().err
