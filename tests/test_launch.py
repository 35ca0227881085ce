"""Where a run goes that names no folder."""

from pathlib import Path

import pytest

from cnnjax import launch
from cnnjax.config import default_config, for_platform
from cnnjax.errors import InputError
from cnnjax.workdir import files


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for _ in range(5):
        launch.default_workdir("base").mkdir(parents=True)
    names = [path.name for path in Path("runs").iterdir()]
    assert len(names) == 5
    assert any(name.endswith("-2") for name in names)


@pytest.mark.parametrize("config", ["configs/mlp.py", None, {"seed": 0}])
def test_a_configuration_is_made_by_default_config(tmp_path, config):
    with pytest.raises(InputError, match=r"of type .*, need a ConfigDict; make one"):
        launch.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_run_may_be_named_from_the_home_folder(tmp_path, monkeypatch, capsys):
    config = for_platform(default_config("MLP"), "cpu")
    final = dict.fromkeys(files.SUMMARY, config.train.steps)
    (tmp_path / "run").mkdir()
    files.write_json(tmp_path / "run" / files.CONFIG, config.to_dict())
    files.write_json(tmp_path / "run" / files.FINAL_METRICS, final)
    monkeypatch.setenv("HOME", str(tmp_path))
    launch.train(config, "~/run")
    assert f"{tmp_path}/run is finished" in capsys.readouterr().out
