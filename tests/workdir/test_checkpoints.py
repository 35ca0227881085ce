"""What is restored is what was saved, or it is noticed; and which steps are kept.

Damage of every kind is done by hand; `corruption.py` does it ten thousand times.
"""

import dataclasses
import json
import logging
import math
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.errors import InputError, RunError
from cnnjax.parallel import Partitioner, make_mesh
from cnnjax.recipe import make_recipe
from cnnjax.runtime import processes
from cnnjax.state import TrainState, init_state
from cnnjax.workdir.checkpoints import Best, Checkpoints
from cnnjax.workdir.integrity import digest

RUN = {"config": "abc", "data": "def", "seed": 7}
ABOUT = {"train_seconds": 1.25, "compile_seconds": 0.1}


class Net(nn.Module):
    """Small, of two layers; the size of the first one tells networks apart."""

    hidden: int = 50

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1)
        return nn.Dense(10, name="logits")(nn.Dense(self.hidden, name="hidden")(x))


def new_state(seed: int = 0, *, hidden: int = 50, ema: bool = False) -> TrainState:
    """A state of random numbers, hardly compressible, as real ones are."""
    recipe = make_recipe(Net(hidden), ema_decay=0.9 if ema else 0.0)
    shapes = jax.eval_shape(lambda: init_state(recipe, (8, 8, 1), seed=0))
    draw = np.random.default_rng(seed)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), shapes
    )
    return dataclasses.replace(state, seed=jnp.uint32(seed))


def save(directory: Path, *steps: int) -> None:
    """Saves for each step a state of that seed."""
    with Checkpoints(directory, run=RUN) as checkpoints:
        for step in steps:
            checkpoints.save(step, new_state(step), ABOUT)


def seed_restored(directory: Path, *, read_only: bool = False) -> int:
    """Restores the newest good step; its bytes must be those of the seed it has."""
    with Checkpoints(directory, run=RUN, read_only=read_only) as checkpoints:
        restored = checkpoints.restore_latest(new_state())
    assert restored is not None
    state, about = restored
    assert about == ABOUT
    assert digest(state) == digest(new_state(int(state.seed)))
    return int(state.seed)


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    """Returns path -> size and time of change of everything below `directory`."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
    }


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    save(directory, 1, 2)
    return directory


@pytest.fixture
def two(saved: Path, tmp_path: Path) -> Path:
    """Steps 1 and 2, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


@pytest.mark.parametrize("ema", [False, True])
def test_the_same_bytes_on_any_number_of_devices(tmp_path: Path, ema: bool) -> None:
    state = new_state(3, ema=ema)
    expected = digest(state)
    assert any("ema_params" in name for name in expected) == ema
    for step, num_devices in enumerate([1, 2, 8, 1]):
        like = Partitioner(make_mesh(num_devices)).replicate(new_state(ema=ema))
        with Checkpoints(tmp_path, run=RUN) as checkpoints:
            restored = checkpoints.restore_latest(like)
            if restored is not None:
                state = restored[0]
                assert jax.tree.structure(state) == jax.tree.structure(like)
                for leaf, wanted in zip(
                    jax.tree.leaves(state), jax.tree.leaves(like), strict=True
                ):
                    assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
                    assert leaf.weak_type == wanted.weak_type
            assert digest(state) == expected
            checkpoints.save(step, state, ABOUT)
    assert restored is not None


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    assert names(tmp_path) == ["4", "5"]
    assert seed_restored(tmp_path) == 5


def test_an_empty_folder_restores_nothing(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "new", run=RUN) as checkpoints:
        assert checkpoints.restore_latest(new_state()) is None


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    """Though the first save may still be under way when the second is asked for."""
    with Checkpoints(tmp_path, run=RUN) as checkpoints:
        checkpoints.save(2, new_state(2), ABOUT)
        checkpoints.save(2, new_state(9), ABOUT)
    before = listing(tmp_path)
    with Checkpoints(tmp_path, run=RUN) as checkpoints:
        checkpoints.save(2, new_state(9), ABOUT)
        with pytest.raises(RunError, match=r"1 was not saved: .* newer steps \(\[2\]"):
            checkpoints.save(1, new_state(1), ABOUT)
    assert listing(tmp_path) == before
    assert seed_restored(tmp_path) == 2


def test_a_state_may_be_donated_as_soon_as_it_is_saved(tmp_path: Path) -> None:
    overwrite = jax.jit(
        lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0
    )
    for num_devices in (1, 8):
        partitioner = Partitioner(make_mesh(num_devices))
        state = partitioner.replicate(new_state(num_devices))
        with Checkpoints(tmp_path, run=RUN) as checkpoints:
            checkpoints.save(num_devices, state, ABOUT)
            jax.block_until_ready(overwrite(state))
        assert seed_restored(tmp_path) == num_devices


def largest_file(directory: Path) -> Path:
    return max(
        (path for path in directory.rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )


def truncate(step: Path) -> None:
    data = largest_file(step / "state")
    os.truncate(data, data.stat().st_size // 2)


def flip_a_bit(step: Path) -> None:
    data = largest_file(step / "state")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def edit_meta(change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(step: Path) -> None:
        path = step / "meta" / "metadata"
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before

    return edit


def without_seal(text: str) -> str:
    meta = json.loads(text)
    del meta["seal"]
    return json.dumps(meta)


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "data truncated": (truncate, "2: "),
    "data deleted": (lambda step: largest_file(step / "state").unlink(), "2: "),
    "data without its folder": (lambda step: shutil.rmtree(step / "state"), "state"),
    "one bit of the weights": (flip_a_bit, "SHA-256"),
    "manifest deleted": (
        lambda step: (step / "state" / "manifest.ocdbt").unlink(),
        "does not exist",
    ),
    "tree garbled": (
        lambda step: (step / "state" / "_METADATA").write_text("{garbage"),
        "JSONDecodeError",
    ),
    "meta deleted": (lambda step: (step / "meta/metadata").unlink(), "not found"),
    "meta garbled": (edit_meta(lambda text: "{garbage"), "JSONDecodeError"),
    "meta no text": (
        lambda step: (step / "meta/metadata").write_bytes(b"\xff\xfe\x00"),
        "UnicodeDecodeError",
    ),
    "meta of another kind": (edit_meta(lambda text: "[1, 2]"), "2: "),
    "a shape in the meta": (
        edit_meta(lambda text: text.replace("[64, 50]", "[64, 51]")),
        "SHA-256",
    ),
    "a name in the meta": (
        edit_meta(lambda text: text.replace("train_seconds", "urain_seconds")),
        "SHA-256",
    ),
    "a number in the meta": (
        edit_meta(lambda text: text.replace("1.25", "1.35")),
        "SHA-256",
    ),
    "no digest of the meta": (edit_meta(without_seal), "KeyError: 'seal'"),
    "an empty folder": (empty, "meta"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_the_step_before_used(
    two: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, reason = DAMAGES[damage]
    spoil(two / "2")
    damaged = listing(two / "2")
    assert seed_restored(two, read_only=True) == 1
    assert names(two) == ["1", "2"]
    assert seed_restored(two) == 1
    assert names(two) == ["1", "2.corrupt"]
    assert listing(two / "2.corrupt") == damaged
    warnings = capfd.readouterr().err.splitlines()
    assert len(warnings) == 2, "one a restore, and not a word more"
    for warning in warnings:
        assert warning.startswith("warning: checkpoint 2: ")
        assert reason in warning


def test_a_step_that_another_process_cannot_read_is_passed_over(
    two: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    others = iter(["OSError: its disk"])
    monkeypatch.setattr(processes, "gather", lambda mine: [mine, next(others, mine)])
    assert seed_restored(two) == 1
    assert names(two) == ["1", "2.corrupt"]
    assert capfd.readouterr().err == "warning: checkpoint 2: OSError: its disk\n"


def test_a_step_that_was_moved_aside_can_be_saved_again(two: Path) -> None:
    """And moved aside again, beside the first."""
    for aside in (["2.corrupt"], ["2.corrupt", "2.corrupt-2"]):
        flip_a_bit(two / "2")
        with Checkpoints(two, run=RUN) as checkpoints:
            assert checkpoints.restore_latest(new_state()) is not None
            assert checkpoints.steps() == [1]
            checkpoints.save(2, new_state(2), ABOUT)
        assert names(two) == ["1", "2", *aside]
        assert seed_restored(two) == 2


def test_none_is_good(two: Path) -> None:
    """All reasons are named, and the next start does not begin from zero either."""
    flip_a_bit(two / "1")
    truncate(two / "2")
    before = listing(two)
    for _ in range(2):
        with pytest.raises(RunError, match=r"is good \(2: .*; 1: .* its SHA-256\)"):
            seed_restored(two)
        assert listing(two) == before


def test_strangers_are_passed_over(two: Path) -> None:
    for name in ("2.corrupt", "old", "-3", "5.orbax-checkpoint-tmp"):
        (two / name).mkdir()
    (two / "notes.txt").write_text("mine")
    (two / "7").write_text("a file, not a step")
    (two / "2" / "metrics").mkdir()
    (two / "2" / "metrics" / "metrics").write_text("{garbage")
    before = listing(two)
    assert seed_restored(two, read_only=True) == 2
    assert listing(two) == before
    assert seed_restored(two) == 2
    assert not (two / "5.orbax-checkpoint-tmp").exists()
    assert (two / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("like", "difference"),
    [
        (
            lambda: new_state(hidden=51),
            r"\.opt_state\[0\]\.mu\['hidden'\]\['bias'\]"
            r" float32 \[50\], need float32 \[51\]",
        ),
        (
            lambda: new_state(ema=True),
            r"\.ema_params\['hidden'\]\['bias'\] absent, need float32 \[50\]",
        ),
        (
            # Orbax would cast.
            lambda: dataclasses.replace(new_state(), step=jnp.int16(0)),
            r"\.step int32 \[\], need int16 \[\]",
        ),
    ],
)
def test_another_network(
    two: Path, like: Callable[[], TrainState], difference: str
) -> None:
    before = listing(two)
    with (
        Checkpoints(two, run=RUN) as checkpoints,
        pytest.raises(InputError, match=f"2 is a checkpoint of .*: got {difference}"),
    ):
        checkpoints.restore_latest(like())
    assert listing(two) == before


@pytest.mark.parametrize(("how", "code"), [("os._exit", 9), ("sys.exit", 3)])
def test_an_exit_right_after_a_save(tmp_path: Path, how: str, code: int) -> None:
    """A kill leaves the step whole or not at all; an exit waits for it."""
    program = f"""
import os, sys
from pathlib import Path
import numpy as np
from cnnjax.workdir.checkpoints import Best, Checkpoints

with Checkpoints(Path(sys.argv[1]), run={RUN}) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(step, {{"x": np.full((2000, 2000), step)}}, {{}})
    {how}({code})
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr
    with Checkpoints(tmp_path, run=RUN) as checkpoints:
        steps = checkpoints.steps()
        restored = checkpoints.restore_latest({"x": np.zeros((2000, 2000), int)})
    assert restored is not None
    possible = [[2, 3]] if how == "sys.exit" else [[2, 3], [1, 2]]
    assert steps in possible
    np.testing.assert_array_equal(restored[0]["x"], steps[-1])
    assert names(tmp_path) == [str(step) for step in steps], "no remains"


@pytest.fixture
def full_disk():
    """No file may grow beyond 4 kB: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if full else soft, hard))

    yield fill
    fill(False)


def test_a_full_disk_is_told_by_the_next_save(two: Path, full_disk) -> None:
    message = "could not be written to .* earlier ones are kept"
    with Checkpoints(two, run=RUN) as checkpoints:
        full_disk(True)
        checkpoints.save(3, new_state(3), ABOUT)
        with pytest.raises(RunError, match=message):
            checkpoints.save(4, new_state(4), ABOUT)
        full_disk(False)
    assert seed_restored(two) == 2


def test_a_first_save_that_fails_leaves_nothing(tmp_path: Path, full_disk) -> None:
    with (
        pytest.raises(RunError, match=r"File too large.*; there is no earlier one: "),
        Checkpoints(f"{tmp_path}/checkpoints", run=RUN) as checkpoints,
    ):
        full_disk(True)
        checkpoints.save(1, new_state(), ABOUT)
    full_disk(False)


def test_a_folder_moved_away_and_made_again(tmp_path: Path) -> None:
    """As by a save that was under way as it was moved: no later one goes there."""
    directory = tmp_path / "checkpoints"
    with Checkpoints(directory, run=RUN) as checkpoints:
        checkpoints.check()
        directory.rename(tmp_path / "elsewhere")
        directory.mkdir()
        with pytest.raises(RunError, match="the folder was moved while this ran"):
            checkpoints.check()
        with pytest.raises(RunError, match="see to the disk"):
            checkpoints.save(1, new_state(), ABOUT)
    assert not list(directory.iterdir())


def test_a_full_disk_is_told_at_the_end(two: Path, full_disk, capfd) -> None:
    with (
        pytest.raises(RunError, match="could not be written"),
        Checkpoints(two, run=RUN) as checkpoints,
    ):
        full_disk(True)
        checkpoints.save(3, new_state(3), ABOUT)
    full_disk(False)
    assert capfd.readouterr().err == ""
    assert seed_restored(two) == 2


TINY = {"x": np.zeros(1000)}


def save_scored(directory: Path, scores: dict[int, float | None]) -> None:
    """Saves each step in a session of its own, as after a restart."""
    for step, score in scores.items():
        with Checkpoints(directory, run=RUN) as checkpoints:
            checkpoints.restore_latest(TINY)
            checkpoints.save(step, {"x": np.full(1000, float(step))}, {}, score=score)


def best_restored(directory: Path) -> float | None:
    with Checkpoints(directory, run=RUN, read_only=True) as checkpoints:
        restored = checkpoints.restore_best(TINY)
    return None if restored is None else float(restored[0]["x"][0])


def test_the_best_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    assert best_restored(tmp_path) is None
    save_scored(tmp_path, {1: None, 2: 0.3})
    assert best_restored(tmp_path) == 2
    save_scored(tmp_path, {3: 0.9, 4: math.nan, 5: 0.9, 6: math.inf, 7: 0.1, 8: None})
    assert names(tmp_path) == ["3", "7", "8"]
    assert best_restored(tmp_path) == 3
    save_scored(tmp_path, {9: 0.91, 10: 0.2, 11: 0.2})
    assert names(tmp_path) == ["10", "11", "9"]


def test_reading_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a notebook, where nothing else keeps Orbax from saying what was asked for."""
    absl = logging.getLogger("absl")
    before = absl.level
    try:
        absl.setLevel(logging.WARNING)
        absl.addHandler(caplog.handler)
        save_scored(tmp_path, {1: 0.5})
        caplog.clear()
        with Checkpoints(tmp_path, run=RUN, read_only=True) as checkpoints:
            assert checkpoints.steps() == [1]
        assert absl.level == logging.WARNING
    finally:
        absl.removeHandler(caplog.handler)
        absl.setLevel(before)
    assert "read only" not in caplog.text


def test_without_scores_there_is_no_best(tmp_path: Path) -> None:
    save_scored(tmp_path, {1: None, 2: math.nan, 3: None})
    assert names(tmp_path) == ["2", "3"]
    assert best_restored(tmp_path) is None


@pytest.mark.parametrize("part", ["state", "meta"])
def test_the_newest_is_the_best_and_damaged(
    tmp_path: Path, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    save_scored(tmp_path, {1: 0.5, 2: 0.7, 3: 0.9})
    for path in (tmp_path / "3" / part).rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    if part == "state":
        with pytest.raises(RunError, match=r"best checkpoint in .* \(3: .*latest"):
            best_restored(tmp_path)
    else:  # Which was the best by then cannot be known.
        assert best_restored(tmp_path) == 2
        said = capfd.readouterr().err
        assert re.fullmatch("warning: checkpoint 3: .*; it may be the best\n", said)
    # Nor is there none where it was the only one with a score.
    save_scored(tmp_path / "only", {1: math.nan, 2: 0.7})
    for path in (tmp_path / "only" / "2" / part).rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"best checkpoint in .* \(2: "):
        best_restored(tmp_path / "only")


def test_a_damaged_best_is_not_replaced_by_another_in_silence(tmp_path: Path) -> None:
    save_scored(tmp_path, {1: 0.5, 2: 0.1, 3: 0.2})
    meta = tmp_path / "1" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace("0.5", "0.4"))
    with pytest.raises(RunError, match=r"best checkpoint in .* \(1: .*SHA-256.*latest"):
        best_restored(tmp_path)
    save_scored(tmp_path, {4: 0.3})
    assert names(tmp_path) == ["1", "3", "4"], "and neither is it deleted"
    (tmp_path / "1").rename(tmp_path.parent / "elsewhere")
    save_scored(tmp_path, {5: 0.2, 6: 0.1})
    assert names(tmp_path) == ["5", "6"]
    assert best_restored(tmp_path) == 5


@given(st.lists(st.none() | st.floats(), max_size=12))
def test_the_first_of_the_highest(scores: list[float | None]) -> None:
    best = Best()
    for step, score in enumerate(scores):
        best.offer(step, score)
    finite = [(-s, i) for i, s in enumerate(scores) if s is not None and s - s == 0]
    expected = min(finite)[1] if finite else None
    assert (best.record and best.record["step"]) == expected
    infos = [SimpleNamespace(step=step) for step in range(len(scores))]
    kept = best.should_preserve(infos, context=None)
    newest = range(max(0, len(scores) - 2), len(scores))
    assert {i for i, k in enumerate(kept) if k} == {*newest, expected} - {None}


@pytest.mark.parametrize(
    ("part", "other", "words"),
    [
        ("config", "abd", "SHA-256 of the configuration abc, need abd"),
        ("data", "deg", "fingerprint of the data def, need deg"),
        ("seed", 8, "seed 7, need 8"),
    ],
)
def test_another_runs_checkpoint(
    tmp_path: Path, part: str, other: str | int, words: str
) -> None:
    save_scored(tmp_path, {1: 0.5})
    with (
        Checkpoints(tmp_path, run=RUN | {part: other}) as checkpoints,
        pytest.raises(InputError, match=f"1 is a checkpoint of another run: .*{words}"),
    ):
        checkpoints.restore_latest(TINY)
    assert names(tmp_path) == ["1"]


def test_what_is_said_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    save_scored(tmp_path, {1: 0.5})
    meta = tmp_path / "1" / "meta" / "metadata"
    about = json.loads(meta.read_text())
    meta.write_text(json.dumps(about | {"padding": " " * 2**24}))
    with (
        Checkpoints(tmp_path, run=RUN) as checkpoints,
        pytest.raises(RunError, match="is larger than 16777216 bytes"),
    ):
        checkpoints.restore_latest(TINY)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_poisoned_state_is_never_saved(tmp_path: Path, bad: float) -> None:
    with (
        Checkpoints(tmp_path, run=RUN) as checkpoints,
        pytest.raises(
            RunError,
            match=r"\['x'\] is not finite .*; there is no earlier one: lower"
            r" optim\.learning_rate in another --workdir, or",
        ),
    ):
        checkpoints.save(1, {"n": np.arange(3), "x": np.array([1, bad])}, {})
    assert names(tmp_path) == []


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Orbax takes text only; it would fail after the first steps, as on a full disk."""
    with pytest.raises(InputError, match="need a path that is text in UTF-8"):
        Checkpoints(tmp_path / os.fsdecode(b"\xff"), run=RUN)
    assert list(tmp_path.iterdir()) == []
