"""What a run leaves to read: JSON lines, and the chapter's lines on the console."""

import json
import os
from pathlib import Path

import pytest

from cnnjax.errors import RunError
from cnnjax.metrics import with_spread
from cnnjax.reporting import metrics_log

FULL_DISK = Path("/dev/full")


def test_lines_are_json_and_there_as_soon_as_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with metrics_log.Writer(path) as log:
        log.write(0, {"train/loss": 4.25, "train/accuracy": float("nan")})
        first = path.read_text()
        log.write(10, {"eval/correct": 7, "eval/split": "test"})
    with metrics_log.Writer(path) as log:
        log.write(20, {"train/loss": float("-inf")})
    assert path.read_text().startswith(first)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == [
        {"step": 0, "train/loss": 4.25, "train/accuracy": None},
        {"step": 10, "eval/correct": 7, "eval/split": "test"},
        {"step": 20, "train/loss": None},
    ]


def test_a_list_of_many_seeds_is_one_of_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with metrics_log.Writer(path) as log:
        log.write(0, {"train/loss": [4.5, float("nan")], "eval/correct": [7, 8]})
    line = {"step": 0, "train/loss": [4.5, None], "eval/correct": [7, 8]}
    assert json.loads(path.read_text()) == line


def test_a_file_deleted_while_it_is_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with metrics_log.Writer(path) as log, metrics_log.Writer(Path(os.devnull)) as none:
        log.write(0, {"train/loss": 1.0})
        path.rename(tmp_path / "moved")  # is still there to be read
        log.write(1, {"train/loss": 1.0})
        (tmp_path / "moved").unlink()
        with pytest.raises(RunError, match=r"metrics\.jsonl was deleted .*the same"):
            log.write(2, {"train/loss": 1.0})
        none.write(2, {"train/loss": 1.0})


@pytest.mark.skipif(not FULL_DISK.exists(), reason="Linux has it")
def test_a_full_disk_is_told_at_once() -> None:
    log = metrics_log.Writer(FULL_DISK)
    with pytest.raises(OSError, match="No space left"):
        log.write(0, {"train/loss": 1.0})
    # What could not be written is tried again.
    with pytest.raises(OSError, match="No space left"), log:
        pass


def test_the_chapters_lines() -> None:
    values = {
        "train/loss": 4.674,
        "perf/examples_per_sec": 1032.06,
        "perf/sec_per_batch": 0.12402,
    }
    line = "step 10, loss=4.67 (1032.1 examples/sec; 0.124 sec/batch)"
    assert metrics_log.training_line(values, 10) == line
    final = {"test/accuracy": 0.732, "test/correct": 7320, "test/count": 10_000}
    assert (
        metrics_log.precision_line(final, "test", "cifar10", 1)
        == "precision @ 1 = 0.732 (7320/10000) on cifar10 [test]"
    )


def test_the_chapters_lines_of_many_seeds() -> None:
    values = {
        "train/loss": [4.0, 5.0],
        "perf/examples_per_sec": 2000.0,
        "perf/sec_per_batch": 0.128,
    }
    line = "step 10, loss=4.50 (2000.0 examples/sec; 0.128 sec/batch)"
    assert metrics_log.training_line(with_spread(values), 10) == line
    accuracies = {"test/accuracy": [0.70, 0.72], "test/count": 10_000}
    final = with_spread(accuracies)
    assert (
        metrics_log.precision_line(final, "test", "cifar10", 1)
        == "precision @ 1 = 0.710 ± 0.014 (2 seeds, 10000 pictures) on cifar10 [test]"
    )
