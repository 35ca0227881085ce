"""Where a run goes that names no folder, and what data of one's own must be."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from cnnjax import launch
from cnnjax.config import default_config, for_platform
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.data.load import load_dataset
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


def of_digits() -> ConfigDict:
    config = default_config("MLP")
    config.data.source, config.data.name = "embedded", "digits"
    config.data.pipeline = "device"
    config.train.steps, config.train.batch_size = 2, 50
    return config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("views", 10, r"got eval\.views=10 with data\.crop=0, need a crop smaller"),
        ("top_k", 10, r"got eval\.top_k=10, need less than the 10 classes of digits"),
    ],
)
def test_data_of_one_s_own_must_fit(tmp_path, field, value, message):
    config = of_digits()
    config.eval[field] = value
    with pytest.raises(InputError, match=message):
        launch.train(config, tmp_path / "run", dataset=load_dataset("digits"))
    assert not list(tmp_path.iterdir())


def test_a_run_on_other_data_is_another_run(tmp_path, capsys):
    config, digits = of_digits(), load_dataset("digits")
    config.optim.schedule = "cosine"
    launch.train(config, tmp_path / "run", dataset=digits)
    said = capsys.readouterr().err
    assert "warning: optim.schedule=cosine with optim.decay_rate=1 keeps the" in said
    launch.train(config, tmp_path / "run", dataset=digits)
    assert "is finished" in capsys.readouterr().out
    fewer = Split(digits.train.images[:99], digits.train.labels[:99])
    other = make_dataset("other", "1", fewer, digits.test, digits.class_names)
    with pytest.raises(InputError, match=r"a run on digits, whose pictures differ fr"):
        launch.train(config, tmp_path / "run", dataset=other)


def test_a_run_may_be_named_from_the_home_folder(tmp_path, monkeypatch, capsys):
    config = for_platform(default_config("MLP"), "cpu")
    final = dict.fromkeys(files.SUMMARY, config.train.steps)
    (tmp_path / "run").mkdir()
    files.write_json(tmp_path / "run" / files.CONFIG, config.to_dict())
    files.write_json(tmp_path / "run" / files.FINAL_METRICS, final)
    monkeypatch.setenv("HOME", str(tmp_path))
    launch.train(config, "~/run")
    assert f"{tmp_path}/run is finished" in capsys.readouterr().out
