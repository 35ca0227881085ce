"""What comes back is what went in, or it is noticed: damage of every kind, by hand."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import optimizers, parallel
from cnnjax.errors import InputError, RunError
from cnnjax.state import TrainState, init_state
from cnnjax.workdir.checkpoints import Checkpoints
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
    tx = optimizers.make_optimizer("adam", lambda _: 1e-3)
    shapes = jax.eval_shape(
        lambda: init_state(Net(hidden), tx, seed=0, image_shape=(8, 8, 1), ema=ema)
    )
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
        mesh = parallel.make_mesh(num_devices)
        like = parallel.replicate(new_state(ema=ema), mesh)
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


def test_the_digest_is_of_path_dtype_shape_and_bytes() -> None:
    trees = [
        {"a": np.zeros(4, np.float32)},
        {"b": np.zeros(4, np.float32)},
        {"a": np.zeros(4, np.int32)},
        {"a": np.zeros((2, 2), np.float32)},
        {"a": np.array([0, 0, 0, -0.0], np.float32)},
    ]
    assert len({json.dumps(digest(tree)) for tree in trees}) == len(trees)


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
        mesh = parallel.make_mesh(num_devices)
        state = parallel.replicate(new_state(num_devices), mesh)
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
from cnnjax.workdir.checkpoints import Checkpoints

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
