"""What a configuration names, and whether it fits the run that it is of."""

import pytest

from cnnjax import loading
from cnnjax.config import default_config
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
