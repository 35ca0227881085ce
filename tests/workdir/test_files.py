"""A workdir: one run, one owner, and what may change when it goes on."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnjax import config as configs
from cnnjax.config import FIELDS, default_config
from cnnjax.config.schema import MODEL_FIELDS, Field
from cnnjax.errors import InputError
from cnnjax.workdir import files
from cnnjax.workdir.identity import make_identity

CONFIG = default_config("CifarCNN").to_dict()
# Written out and not taken from identity.MAY_CHANGE: these are DESIGN's words.
ALLOWED = {
    "train.steps",
    "train.steps_per_call",  # as the pipeline: how the same steps are run
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.report",
    "train.tensorboard",
    "data.pipeline",
    "data.workers",
    "data.mirror",
    "data.cache",
    "compile_cache",
    # Where the data lie: their fingerprint says whether they are the run's.
    "data.dir",
    "data.file",
    "data.download",
    "data.on_missing",
    "data.num_classes",
}


def changed(name: str, value: Any) -> dict[str, Any]:
    config = json.loads(json.dumps(CONFIG))
    *sections, leaf = name.split(".")
    section = config
    for part in sections:
        section = section[part]
    section[leaf] = value
    return config


def stored_in(workdir: Path) -> dict[str, Any]:
    return files.read_json(workdir / files.CONFIG)


def open_run(workdir: Path, config: Any = CONFIG, **options: Any) -> Any:
    about = {"fingerprint": "abc", "dataset": "digits", "steps_may_change": True}
    return files.open_run(workdir, config, **about | options)


def enter(workdir: Path, config: Any = CONFIG, **options: Any) -> None:
    with open_run(workdir, config, **options):
        pass


@contextlib.contextmanager
def other_process(workdir: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the run until it is killed."""
    program = f"""
import sys, time
from pathlib import Path
from cnnjax.workdir import files
about = {{"fingerprint": "abc", "dataset": "digits", "steps_may_change": True}}
with files.open_run(Path(sys.argv[1]), {CONFIG!r}, **about):
    print("open", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program, str(workdir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_one_workdir_has_one_owner(tmp_path: Path) -> None:
    with other_process(tmp_path) as owner:
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        with pytest.raises(InputError, match=f"in use by process {owner.pid} on .*;"):
            enter(tmp_path, changed("seed", 1))
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        enter(tmp_path)
    # The remains of a longer name of the last owner must not be read.
    with (
        open_run(tmp_path),
        pytest.raises(InputError, match="in use by process"),
    ):
        enter(tmp_path)
    enter(tmp_path)


def test_the_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_run(tmp_path),
    ):
        raise KeyboardInterrupt
    enter(tmp_path)


def test_the_configuration_is_stored_as_data(tmp_path: Path) -> None:
    enter(tmp_path / "a" / "new" / "folder")
    stored = stored_in(tmp_path / "a" / "new" / "folder")
    assert configs.flatten(stored) == configs.flatten(CONFIG)
    assert stored["data"]["distortions"] == list(CONFIG["data"]["distortions"])


@pytest.mark.parametrize("name", sorted(FIELDS | MODEL_FIELDS["CifarCNN"]))
def test_what_may_change_on_resume(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(tmp_path)
    before = (tmp_path / files.CONFIG).read_bytes()
    asked = changed(name, "other")
    if name in ALLOWED or name.startswith("parallel."):
        enter(tmp_path, asked)
        assert stored_in(tmp_path) == asked
        out = capsys.readouterr().out
        assert ("differ in their bytes" in out) == name.startswith("parallel.")
    else:
        shown = rf"holds another run, which differs in {name} .* -> 'other';"
        with pytest.raises(InputError, match=shown):
            enter(tmp_path, asked)
        assert (tmp_path / files.CONFIG).read_bytes() == before


def test_the_data_may_move_and_the_run_stays_what_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoints bear the paths with which it began, in its identity."""
    enter(tmp_path, changed("data.dir", "/scratch/1"))
    files.write_json(tmp_path / files.MANIFEST, {"data": DATA})
    identity = files.of_workdir(tmp_path)
    assert identity == make_identity(changed("data.dir", "/scratch/1"), "abc")
    assert files.began(tmp_path) == {}
    for place in ("/scratch/2", "/scratch/2/", "../2"):
        enter(tmp_path, changed("data.dir", place))
        assert f"-> {place!r}: another way to the run's data" in capsys.readouterr().out
        assert stored_in(tmp_path)["data"]["dir"] == place
        assert files.began(tmp_path)["data.dir"] == "/scratch/1"
        assert files.of_workdir(tmp_path) == identity
    other = changed("data.dir", "/scratch/3") | {"seed": 1}
    with pytest.raises(InputError, match="which differs in seed 0 -> 1; name"):
        enter(tmp_path, other)
    assert stored_in(tmp_path)["data"]["dir"] == "../2"


def test_steps_may_not_change_where_the_schedule_follows_them(tmp_path: Path) -> None:
    enter(tmp_path, steps_may_change=False)
    with pytest.raises(InputError, match=r"train\.steps 3000 -> 4000;"):
        enter(tmp_path, changed("train.steps", 4000), steps_may_change=False)
    enter(tmp_path, changed("train.steps", 4000))


def test_a_run_of_an_older_version_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it has never heard of at its default, and with nothing else."""
    enter(tmp_path)
    final = dict.fromkeys(files.SUMMARY, 3000)
    files.write_json(tmp_path / files.FINAL_METRICS, final)
    files.write_json(tmp_path / files.MANIFEST, {"data": DATA})
    identity = files.of_workdir(tmp_path)
    before = (tmp_path / files.CONFIG).read_bytes()

    field = Field(("a",), "letters", lambda value: True, is_new=True)
    monkeypatch.setitem(FIELDS, "optim.letters", field)
    assert files.of_workdir(tmp_path) == identity
    same, other = changed("optim.letters", ("a",)), changed("optim.letters", ("b",))
    assert files.finished(tmp_path, configs.flatten(same)) == final
    assert files.finished(tmp_path, configs.flatten(other)) is None
    with pytest.raises(InputError, match=r"in optim\.letters \['a'\] -> \['b'\];"):
        enter(tmp_path, other)
    assert (tmp_path / files.CONFIG).read_bytes() == before
    enter(tmp_path, same)
    assert stored_in(tmp_path)["optim"]["letters"] == ["a"]
    assert files.of_workdir(tmp_path) == identity
    with pytest.raises(InputError, match=r"in optim\.letters \['a'\] -> \['b'\];"):
        enter(tmp_path, other)


def test_all_differences_are_shown(tmp_path: Path) -> None:
    enter(tmp_path)
    other = default_config("SimpleCNN").to_dict() | {"seed": 5}
    with pytest.raises(InputError) as refused:
        enter(tmp_path, other)
    message = str(refused.value)
    assert "\n" not in message
    for difference in (
        "seed 0 -> 5",
        "model.bias None -> 0.1",
        "model.lrn True -> None",
        "model.name 'CifarCNN' -> 'SimpleCNN'",
    ):
        assert difference in message


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty \(thesis.tex, ...\)"):
        enter(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_systems_leave_in_a_folder_is_no_one_elses(tmp_path: Path) -> None:
    for name in (".DS_Store", ".gitkeep", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "lost+found").mkdir()
    enter(tmp_path)
    assert stored_in(tmp_path)["seed"] == 0


@pytest.mark.parametrize(
    ("name", "make"),
    [
        (files.CHECKPOINTS, Path.touch),
        ("tensorboard", Path.touch),
        (files.METRICS, Path.mkdir),
        (files.FINAL_METRICS, Path.mkdir),
    ],
)
def test_a_file_in_place_of_a_folder_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    enter(tmp_path)
    make(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} is no (file|folder), need a .* move"):
        enter(tmp_path)


def test_a_configuration_that_an_editor_saved_is_read(tmp_path: Path) -> None:
    enter(tmp_path)
    path = tmp_path / files.CONFIG
    edited = path.read_text().replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + edited.encode())
    enter(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + edited.encode())
    assert stored_in(tmp_path) == json.loads(edited)


def test_a_run_killed_as_it_began_can_begin_again(tmp_path: Path) -> None:
    (tmp_path / files.LOCK).write_text("")
    (tmp_path / files.OWNER).write_text("process 1 on elsewhere")
    (tmp_path / "config.json.tmp").write_text('{"se')
    enter(tmp_path)
    assert stored_in(tmp_path)["seed"] == 0


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("file", "it is a file or a broken link"),
        ("link", "it is a file or a broken link"),
        ("file/below", "Not a directory"),
    ],
)
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, where: str, reason: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    match = rf"need a folder that can be written \({reason}\); name another"
    with pytest.raises(InputError, match=match):
        enter(tmp_path / where)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of writing leaves what was there."""
    enter(tmp_path)
    before = (tmp_path / files.CONFIG).read_bytes()
    written = Path.write_text

    def half(path: Path, text: str) -> int:
        if not path.name.startswith(files.CONFIG):
            return written(path, text)
        written(path, text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space"):
        enter(tmp_path, changed("train.steps", 4000))
    monkeypatch.undo()
    assert (tmp_path / f"{files.CONFIG}{files.UNFINISHED}").exists()
    assert (tmp_path / files.CONFIG).read_bytes() == before
    enter(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read .*No such file"),
        (b"", "cannot be read"),
        (b'{"seed": 0', "cannot be read"),
        (b"\xff\x00", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[1, 2]", "holds no JSON object"),
    ],
)
def test_a_damaged_file_of_a_run(
    tmp_path: Path, content: bytes | None, match: str
) -> None:
    if content is not None:
        (tmp_path / files.CONFIG).write_bytes(content)
        with pytest.raises(InputError, match=match):
            enter(tmp_path)
    with pytest.raises(InputError, match=f"{match}.*is this a run's --workdir"):
        stored_in(tmp_path)


DATA = {"name": "digits", "version": "1", "fingerprint": "abc", "classes": ["0", "1"]}


def test_the_data_must_be_the_same(tmp_path: Path) -> None:
    enter(tmp_path)
    files.write_json(tmp_path / files.MANIFEST, {"data": DATA})
    assert files.trained_on(tmp_path) == DATA
    enter(tmp_path)
    # Their name decides nothing.
    enter(tmp_path, dataset="other")
    for name in ("other", "digits"):
        match = rf"run on digits, .* found as {name}; give it"
        with pytest.raises(InputError, match=match):
            enter(tmp_path, fingerprint="abd", dataset=name)
    # Which field differs says more than that the data do.
    with pytest.raises(InputError, match=r"differs in data\.val_examples"):
        enter(tmp_path, changed("data.val_examples", 7), fingerprint="abd")


@pytest.mark.parametrize("manifest", [{}, {"data": []}, {"data": {"name": "digits"}}])
def test_a_manifest_that_says_too_little(tmp_path: Path, manifest: Any) -> None:
    enter(tmp_path)
    files.write_json(tmp_path / files.MANIFEST, manifest)
    with pytest.raises(InputError, match="lacks classes, fingerprint, name, version"):
        enter(tmp_path)
    with pytest.raises(InputError, match="lacks classes, fingerprint, name, version"):
        files.trained_on(tmp_path)


def test_metrics_are_cut_back_to_where_the_run_stands(tmp_path: Path) -> None:
    path = tmp_path / files.METRICS
    files.drop_metrics_after(path, 20)
    assert not path.exists()
    kept = [
        '{"step": 0, "train/loss": 4.6}',
        '{"step": 10, "train/loss": 4.1, "perf/sec_per_batch": 0.1}',
        '{"step": 10, "eval/accuracy": 0.1, "eval/split": "test"}',
        '{"step": 20, "eval/accuracy": 0.2}',
        '{"step": 20, "eval_ema/accuracy": 0.2}',
    ]
    dropped = [
        '{"step": 20, "train/loss": 3.9}',
        '{"step": 30, "train/loss": 3.8}',
        '{"step": 30, "eval/accuracy": 0.3}',
        "\0\0\0\0",
        "12",
        '{"train/loss": 3.8}',
        '{"step": "10"}',
        '{"step": 10, "train/lo',
    ]
    path.write_text("\n".join(kept[:4] + dropped[:2] + kept[4:] + dropped[2:]))
    for _ in range(2):
        files.drop_metrics_after(path, 20)
        assert path.read_text() == "\n".join(kept) + "\n"
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    files.drop_metrics_after(path, 20)
    assert path.read_text().splitlines() == kept


def test_a_run_is_finished_at_its_own_configuration_only(tmp_path: Path) -> None:
    flat = configs.flatten(CONFIG)
    final = dict.fromkeys(files.SUMMARY, 3000) | {"test/accuracy": 0.7}
    assert files.finished(tmp_path / "none", flat) is None
    enter(tmp_path)
    assert files.finished(tmp_path, flat) is None
    files.write_json(tmp_path / files.FINAL_METRICS, final)
    assert files.finished(tmp_path, flat) == final
    assert files.finished(tmp_path, flat | {"train.log_every": 1}) is None
    enter(tmp_path, changed("train.steps", 4000))
    longer = configs.flatten(changed("train.steps", 4000))
    assert files.finished(tmp_path, longer) is None
    files.write_json(tmp_path / files.FINAL_METRICS, final | {"steps": 5000})
    assert files.finished(tmp_path, longer) is None
    # What is damaged is written anew.
    for damaged in ('{"test/accuracy": 0.7}', '{"steps": 3000}', '{"steps": 30', "[]"):
        (tmp_path / files.FINAL_METRICS).write_text(damaged)
        assert files.finished(tmp_path, flat) is None


def test_the_identity_of_a_run_in_a_folder(tmp_path: Path) -> None:
    """It is read back as JSON, which has no tuples."""
    config = default_config("CifarCNN")
    config.data.distortions = ("crop", "flip")
    enter(tmp_path, config.to_dict())
    files.write_json(tmp_path / files.MANIFEST, {"data": DATA})
    of_run = make_identity(config.to_dict(), "abc")
    assert files.of_workdir(tmp_path) == of_run
    assert (of_run["seed"], of_run["data"]) == (0, "abc")
