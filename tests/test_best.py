"""The best step by the validation split is kept beside the newest two, and known."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.errors import InputError, RunError
from cnnjax.workdir.checkpoints import Best, Checkpoints

RUN = {"config": "abc", "data": "def", "seed": 7}
LIKE = {"x": np.zeros(1000)}


def save(directory: Path, scores: dict[int, float | None]) -> None:
    """Saves each step in a session of its own, as after a restart."""
    for step, score in scores.items():
        with Checkpoints(directory, run=RUN) as checkpoints:
            checkpoints.restore_latest(LIKE)
            checkpoints.save(step, {"x": np.full(1000, float(step))}, {}, score=score)


def steps(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def best_restored(directory: Path) -> float | None:
    with Checkpoints(directory, run=RUN, read_only=True) as checkpoints:
        restored = checkpoints.restore_best(LIKE)
    return None if restored is None else float(restored[0]["x"][0])


def test_the_best_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    assert best_restored(tmp_path) is None
    save(tmp_path, {1: None, 2: 0.3})
    assert best_restored(tmp_path) == 2
    save(tmp_path, {3: 0.9, 4: math.nan, 5: 0.9, 6: math.inf, 7: 0.1, 8: None})
    assert steps(tmp_path) == ["3", "7", "8"]
    assert best_restored(tmp_path) == 3
    save(tmp_path, {9: 0.91, 10: 0.2, 11: 0.2})
    assert steps(tmp_path) == ["10", "11", "9"]


def test_without_scores_there_is_no_best(tmp_path: Path) -> None:
    save(tmp_path, {1: None, 2: math.nan, 3: None})
    assert steps(tmp_path) == ["2", "3"]
    assert best_restored(tmp_path) is None


def test_a_damaged_best_is_not_replaced_by_another_in_silence(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.5, 2: 0.1, 3: 0.2})
    meta = tmp_path / "1" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace("0.5", "0.4"))
    with pytest.raises(RunError, match=r"best checkpoint in .* \(3: .*SHA-256.*latest"):
        best_restored(tmp_path)
    save(tmp_path, {4: 0.3})
    assert steps(tmp_path) == ["1", "3", "4"], "and neither is it deleted"
    (tmp_path / "1").rename(tmp_path.parent / "elsewhere")
    save(tmp_path, {5: 0.2, 6: 0.1})
    assert steps(tmp_path) == ["5", "6"]
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
    save(tmp_path, {1: 0.5})
    with (
        Checkpoints(tmp_path, run=RUN | {part: other}) as checkpoints,
        pytest.raises(InputError, match=f"1 is a checkpoint of another run: .*{words}"),
    ):
        checkpoints.restore_latest(LIKE)
    assert steps(tmp_path) == ["1"]


def test_what_is_said_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.5})
    meta = tmp_path / "1" / "meta" / "metadata"
    about = json.loads(meta.read_text())
    meta.write_text(json.dumps(about | {"padding": " " * 2**24}))
    with (
        Checkpoints(tmp_path, run=RUN) as checkpoints,
        pytest.raises(RunError, match="is larger than 16777216 bytes"),
    ):
        checkpoints.restore_latest(LIKE)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_poisoned_state_is_never_saved(tmp_path: Path, bad: float) -> None:
    with (
        Checkpoints(tmp_path, run=RUN) as checkpoints,
        pytest.raises(RunError, match=r"\['x'\] is not finite after 1 steps, which"),
    ):
        checkpoints.save(1, {"n": np.arange(3), "x": np.array([1, bad])}, {})
    assert steps(tmp_path) == []
