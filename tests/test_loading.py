"""What a configuration names, and whether it fits the run that it is of."""

import numpy as np
import pytest

from cnnjax import loading
from cnnjax.config import default_config
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.errors import InputError
from cnnjax.workdir import files

DIGITS = [str(digit) for digit in range(10)]


def test_the_classes_must_be_those_of_the_run(tmp_path) -> None:
    config = default_config("MLP")
    config.data.source, config.data.name = "embedded", "digits"

    def load(classes):
        data = {"name": "digits", "version": "", "fingerprint": "", "classes": classes}
        files.write_json(tmp_path / files.MANIFEST, {"data": data})
        return loading.load_data_of(config, tmp_path)

    assert load(DIGITS).class_names == tuple(DIGITS)
    for classes in (DIGITS[::-1], DIGITS[:9], [*DIGITS, "10"]):
        needed = rf"need those of digits, .*: {', '.join(classes)}; name"
        with pytest.raises(InputError, match=needed):
            load(classes)


def test_what_the_run_was_trained_on_is_looked_for_where_none_is_named(
    tmp_path, monkeypatch
) -> None:
    """An embedded set, which stood in, as itself; and no other in place of any."""
    asked = []

    def load_source(source, **defaults):
        asked.append((source.kind, source.on_missing, defaults["default_name"]))
        raise InputError("looked")

    monkeypatch.setattr(loading.load, "load_source", load_source)
    data = {"version": "", "fingerprint": "", "classes": DIGITS}
    for name in ("digits", "mnist"):
        files.write_json(tmp_path / files.MANIFEST, {"data": data | {"name": name}})
        with pytest.raises(InputError, match="looked"):
            loading.load_data_of(default_config("MLP"), tmp_path)
    assert asked == [
        ("embedded", "embedded", "digits"),
        ("tfds", "error", "mnist"),
    ]


def held_in(shape=(4, 8, 8, 1), classes=("a", "b"), validation=None, test=True):
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    split = Split(images, np.arange(len(images)) % len(classes))
    return make_dataset("set", "", split, split if test else None, classes, validation)


def test_a_validation_split_of_its_own_is_the_runs() -> None:
    config = default_config("MLP")
    config.train.batch_size = 3
    own = held_in().test
    dataset = held_in(validation=own)
    assert loading.hold_out(config, dataset)[1] is dataset.validation
    assert loading.hold_out(config, held_in())[1] is None
    with pytest.raises(InputError, match="val_examples=0, need a validation split"):
        loading.hold_out(config, held_in(test=False))
    assert len(loading.hold_out(config, held_in(test=False, validation=own))[1].labels)
    config.data.val_examples = 1
    with pytest.raises(InputError, match="set has a validation split of its own"):
        loading.hold_out(config, dataset)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"classes": ("a",)}, r"set has one class \(a\), need two at least"),
        ({"shape": (4, 3, 8, 8)}, r"8 channels in set, .*; move the channels last"),
        ({"shape": (4, 8, 8, 2)}, r"2 channels in set, .*; convert them"),
    ],
)
def test_what_no_network_is_trained_on(monkeypatch, made, message) -> None:
    found = held_in(**made)
    monkeypatch.setattr(loading.load, "load_source", lambda source, **how: found)
    with pytest.raises(InputError, match=message):
        loading.load_data(default_config("MLP"))


def test_other_data_leave_the_places_of_the_runs_own(tmp_path, monkeypatch) -> None:
    """What is named beside another source is refused only if it is named now."""
    asked = []

    def load_source(source, **defaults):
        asked.append((source.kind, source.name, source.directory, source.file))
        return held_in(classes=("caf\u00e9", "b"))

    monkeypatch.setattr(loading.load, "load_source", load_source)
    config = default_config("MLP")
    config.data.name, config.data.dir = "mnist", "/here"
    data = {"name": "mnist", "version": "", "fingerprint": ""}
    data["classes"] = ["cafe\u0301", "b"]  # as another system writes it
    files.write_json(tmp_path / files.MANIFEST, {"data": data})
    files.write_json(tmp_path / files.CONFIG, config.to_dict())
    config.data.source, config.data.file = "npz", "a.npz"
    loading.load_data_of(config, tmp_path)
    config.data.dir = "/there"
    loading.load_data_of(config, tmp_path)
    assert asked == [("npz", "", "", "a.npz"), ("npz", "", "/there", "a.npz")]
