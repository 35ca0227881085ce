"""The commit that a run says it was made by; a manifest that is damaged."""

import json
import subprocess
from pathlib import Path

import pytest

from cnnjax.errors import InputError
from cnnjax.parallel import Partitioner, make_mesh
from cnnjax.workdir import files
from cnnjax.workdir.manifest import (
    check_same_environment,
    commit_of,
    describe_machine,
)


def test_commit_is_dirty_where_the_program_differs(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout

    package = tmp_path / "package"
    package.mkdir()
    program, results = package / "program.py", tmp_path / "results.json"
    program.write_text("a = 1\n")
    results.write_text("{}")
    git("init", "-q")
    assert commit_of(package) is None
    git("add", ".")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD").strip()
    results.write_text("[]")
    assert commit_of(package) == head
    program.write_text("a = 2\n")
    assert commit_of(package) == f"{head}-dirty"


def test_no_git_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(tmp_path) is None  # no repository
    monkeypatch.setenv("PATH", "")
    assert commit_of(Path(__file__).parent) is None

    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(subprocess, "run", denied)
    assert commit_of(Path(__file__).parent) is None


@pytest.mark.parametrize(
    "manifest",
    [
        {"environment": {}},
        {"environment": {}, "devices": {"platform": "cpu"}},
        {"environment": [], "devices": {"platform": "cpu"}, "versions": {"jax": "1"}},
        {"environment": {}, "devices": []},
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, manifest: object) -> None:
    (tmp_path / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json is damaged \(.*restore it"):
        check_same_environment(tmp_path, Partitioner(make_mesh(1), "jit"))


def test_another_number_of_devices_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number is chosen by the machine where `parallel.num_devices` is 0."""
    two = make_mesh(2)
    manifest = describe_machine(Partitioner(make_mesh(1), "jit"))
    (tmp_path / files.MANIFEST).write_text(json.dumps(manifest))
    for mesh, seeds in ((make_mesh(1), 1), (two, 2)):  # a seed is on one device
        check_same_environment(tmp_path, Partitioner(mesh, "jit", seeds))
    assert capsys.readouterr().out == ""
    check_same_environment(tmp_path, Partitioner(two, "jit"))
    said = "devices 1 -> 2: the results will differ in their bytes\n"
    assert capsys.readouterr().out == said
