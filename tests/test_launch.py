"""Where a run goes that names no folder."""

from pathlib import Path

from cnnjax import launch


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for _ in range(5):
        launch.default_workdir("base").mkdir(parents=True)
    names = [path.name for path in Path("runs").iterdir()]
    assert len(names) == 5
    assert any(name.endswith("-2") for name in names)
