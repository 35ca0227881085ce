"""What a checkpoint is bound to: all of a run but what may change on resume."""

import pytest

from cnnjax.config import FIELDS, MODEL_FIELDS, default_config
from cnnjax.workdir import files

MAY_CHANGE = {name for name in FIELDS if name.startswith("parallel.")} | {
    *("train.steps", "train.steps_per_call", "train.log_every", "train.eval_every"),
    *("train.checkpoint_every", "data.pipeline", "data.workers", "compile_cache"),
    *("train.report", "train.tensorboard"),
}


@pytest.mark.parametrize("name", sorted(FIELDS | MODEL_FIELDS["CifarCNN"]))
def test_every_field_but_those_that_may_change(name: str) -> None:
    config = default_config("CifarCNN")
    before = files.of_run(config.to_dict(), "abc")
    with config.ignore_type():
        config.update_from_flattened_dict({name: "other"})
    after = files.of_run(config.to_dict(), "abc")
    assert (before == after) == (name in MAY_CHANGE)


def test_the_folder_says_the_same(tmp_path) -> None:
    config = default_config("CifarCNN")
    config.data.distortions = ("crop", "flip")
    data = {"name": "x", "version": "", "fingerprint": "abc", "classes": []}
    with files.open_run(tmp_path, config.to_dict(), steps_may_change=True):
        files.write_json(tmp_path / files.MANIFEST, {"data": data})
    of_run = files.of_run(config.to_dict(), "abc")
    assert files.of_workdir(tmp_path) == of_run
    assert (of_run["seed"], of_run["data"]) == (0, "abc")
