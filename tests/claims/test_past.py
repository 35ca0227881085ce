"""What counts as a run that has been done already, perhaps by an older version."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from cnnjax import config as configs
from cnnjax.claims import past


@pytest.fixture
def wanted() -> ConfigDict:
    config = configs.default_config("CifarCNN")
    config.num_seeds = 4
    config.data.pipeline = "device"
    return config


def write(folder: Path, config: ConfigDict, without: tuple[str, ...] = ()) -> Path:
    stored = json.loads(config.to_json())
    for name in without:
        section, leaf = name.split(".")
        del stored[section][leaf]
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "final_metrics.json").write_text("{}")
    return folder


def test_a_run_of_the_same_configuration_is_done(
    wanted: ConfigDict, tmp_path: Path
) -> None:
    assert not past.is_done(tmp_path, wanted)
    write(tmp_path, wanted)
    assert past.is_done(tmp_path, wanted)
    # None of these changes what is learnt.
    wanted.data.dir, wanted.train.log_every = "elsewhere", 7
    wanted.parallel.num_devices = 2
    assert past.is_done(tmp_path, wanted)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("optim", "l1", 1e-4),
        ("train", "steps", 3001),
        ("model", "lrn", False),
        ("data", "distortions", ("crop",)),
    ],
)
def test_a_run_of_another_one_is_not(
    wanted: ConfigDict, tmp_path: Path, section: str, field: str, value: object
) -> None:
    write(tmp_path, wanted)
    wanted[section][field] = value
    assert not past.is_done(tmp_path, wanted)


def test_a_field_that_came_later_is_at_its_default_in_older_runs(
    wanted: ConfigDict, tmp_path: Path
) -> None:
    write(tmp_path, wanted, without=("optim.l1", "data.train_examples"))
    assert past.is_done(tmp_path, wanted)
    wanted.optim.l1 = 1e-4
    assert not past.is_done(tmp_path, wanted)
