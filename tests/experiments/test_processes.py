"""Two real processes of two devices each, joined by gloo, against one process."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "mnist.py"
FLAGS = (
    "--config=configs/mlp.py",
    "--config.data.source=embedded",
    "--config.data.pipeline=device",
    "--config.optim.learning_rate=0.01",
    "--config.train.batch_size=16",
    "--config.train.log_every=1",
    "--config.train.checkpoint_every=10",
)
FOUR_DEVICES = "--config.parallel.num_devices=4"
FOREVER = "--config.train.steps=100000"


class Started:
    """A process of a run; what it prints goes to files, which never fill up."""

    def __init__(self, flags, folder: Path, environment) -> None:
        folder.mkdir(exist_ok=True)
        self._files = folder / "out", folder / "err"
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *flags],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=err,
            )

    def end(self) -> tuple[int, str, str]:
        """Waits; returns the exit code, what was printed, and the errors."""
        code = self.process.wait()
        out, err = (path.read_text() for path in self._files)
        return code, out, err


@pytest.fixture
def start_two(environment, tmp_path):
    """Returns (*flags, second=flags) -> both processes of a run, each with two."""
    # gRPC would go to the other process through a proxy. A program from the cache is
    # reported as being of another machine, at length.
    without = ("http_proxy", "https_proxy", "XDG_CACHE_HOME")
    direct = {k: v for k, v in environment.items() if k not in without}
    with contextlib.ExitStack() as started:

        def start_two(*flags, second=()):
            with socket.create_server(("127.0.0.1", 0)) as server:
                address = f"127.0.0.1:{server.getsockname()[1]}"
            both = []
            for i, own in enumerate([(), second]):
                joined = (
                    *FLAGS,
                    "--config.parallel.distributed",
                    f"--config.parallel.coordinator={address}",
                    "--config.parallel.num_processes=2",
                    f"--config.parallel.process_id={i}",
                    *flags,
                    *own,
                )
                both.append(Started(joined, tmp_path / f"process{i}", direct))
                started.callback(both[-1].process.wait)
                started.callback(both[-1].process.kill)
            return both

        yield start_two


def losses(workdir: Path) -> list[float]:
    """Returns the loss of every step, which must be there once."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "train/loss" in record]
    assert [record["step"] for record in records] == list(range(len(records)))
    return [record["train/loss"] for record in records]


def saved_steps(workdir: Path) -> list[int]:
    found = (workdir / "checkpoints").glob("*")
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def wait_for_checkpoint(workdir: Path, step: int, running) -> None:
    while not any(saved >= step for saved in saved_steps(workdir)):
        for one in running:
            assert one.process.poll() is None, one.end()
        time.sleep(0.02)


def finish(call, workdir: Path, steps: int):
    done = call(
        "mnist.py", *FLAGS, f"--config.train.steps={steps}", f"--workdir={workdir}"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_same(found: list[float], expected: list[float]) -> None:
    assert found[:5] == pytest.approx(expected[:5], rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def alone(call, tmp_path_factory):
    """A run of one process on one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(call, workdir, 60)
    return workdir


@pytest.mark.slow
def test_two_are_killed_and_one_goes_on(start_two, call, alone, tmp_path):
    workdir = tmp_path / "run"
    # Each names a folder: it is the first's that they use.
    both = start_two(
        FOREVER,
        FOUR_DEVICES,
        f"--workdir={workdir}",
        second=[f"--workdir={tmp_path / 'other'}"],
    )
    wait_for_checkpoint(workdir, 20, both)
    for one in both:
        one.process.kill()
    (_, out, _), (_, other_out, _) = (one.end() for one in both)
    assert "step 19, loss=" in out and "devices: 4 x cpu" in out
    assert "loss=" not in other_out and not (tmp_path / "other").exists()

    reached = saved_steps(workdir)[-1]
    printed = finish(call, workdir, reached + 5)
    assert f"resuming {workdir} at step {reached}\n" in printed
    assert "parallel.distributed True -> False: the results will differ" in printed
    expected = losses(alone)
    found = losses(workdir)
    assert 25 <= len(found) == reached + 5
    check_same(found[: len(expected)], expected[: len(found)])
    tested = json.loads((workdir / "final_metrics.json").read_text())
    assert tested["test/count"] == 296  # of digits, on devices that do not divide it


@pytest.mark.slow
def test_two_go_on_from_one_and_stop_together(start_two, call, alone, tmp_path):
    workdir = tmp_path / "run"
    finish(call, workdir, 20)
    newest = max(
        (workdir / "checkpoints" / "20" / "state").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    newest.write_bytes(newest.read_bytes()[:100])
    both = start_two(FOREVER, f"--workdir={workdir}", FOUR_DEVICES)
    wait_for_checkpoint(workdir, 30, both)
    both[1].process.send_signal(signal.SIGTERM)
    outputs = [one.end() for one in both]
    for code, _, err in outputs:
        assert code == 143, err
        assert "error: SIGTERM: stopped at step " in err
    assert f"resuming {workdir} at step 10\n" in outputs[0][1]
    assert (workdir / "checkpoints" / "20.corrupt").is_dir()
    found, expected = losses(workdir), losses(alone)
    assert saved_steps(workdir)[-1] == len(found) > 30
    check_same(found[: len(expected)], expected[: len(found)])


def test_processes_that_disagree_name_the_fields_and_leave(start_two, tmp_path):
    both = start_two(f"--workdir={tmp_path / 'run'}", second=["--config.seed=1"])
    for one in both:
        code, _, err = one.end()
        assert code == 2
        assert "error: processes 0 and 1 were given seed 0 and 1; need the same" in err
    assert not (tmp_path / "run").exists()
