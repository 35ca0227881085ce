"""Processes agree, or fail together; each is a real one, joined by JAX."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cnnjax import parallel
from cnnjax.data import batches, load, tf_pipeline
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError
from cnnjax.runtime import processes

BEGIN = """
import json, os, signal, sys
import jax
from cnnjax.errors import InputError, RunError
from cnnjax.runtime import processes
port, count, me = map(int, sys.argv[1:])
jax.config.update("jax_platforms", "cpu")

def join(**changed):
    for name, value in changed.items():
        setattr(processes, name, value)
    try:
        processes.join(f"127.0.0.1:{port}", count, me)
    except InputError as error:
        sys.exit(str(error))

"""
MEETINGS = """
jax.config.update("jax_num_cpu_devices", 2)
join()
found = {"gathered": processes.gather({"me": me, "text": "é" * me * 100})}
found["largest"] = processes.largest(15 * (1 - me))
try:
    processes.check_same({"same": 1, "train.steps": 10 + me})
except InputError as error:
    found["differs"] = str(error)

def meet_with(data):
    try:
        with processes.together() as meet:
            meet(data=data)
    except InputError as error:
        return str(error)

found["other data"] = meet_with(f"set {me}")
found["same data"] = meet_with("set")

def fail_in(process, error, meetings=0):
    try:
        with processes.together() as meet:
            for _ in range(meetings):
                meet()
            if me == process:
                raise error
            meet(last=True)
    except (InputError, RunError, OSError) as error:
        return f"{type(error).__name__}: {error}"

found["input"] = fail_in(1, InputError("no such file"))
found["broken"] = fail_in(0, OSError("disk full"), meetings=2)
found["nobody"] = fail_in(-1, None)
print(json.dumps(found), flush=True)
if me:
    os.kill(os.getpid(), signal.SIGKILL)
with processes.together() as meet:
    meet(last=True)
"""


def run(program: str, count: int, ids: Sequence[int]) -> list[tuple[int, str, str]]:
    """Returns exit code, output and errors of each process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + program, str(port), str(count), str(i)],
            cwd=Path(processes.__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in ids
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *o) for p, o in zip(started, outputs, strict=True)]


def test_they_agree_and_fail_together() -> None:
    (code, out, err), (killed, other_out, _) = run(MEETINGS, 2, [0, 1])
    lines = [text.splitlines()[-1] for text in (out, other_out)]
    first, second = map(json.loads, lines)
    for found in (first, second):
        expected = [{"me": 0, "text": ""}, {"me": 1, "text": "é" * 100}]
        assert found["gathered"] == expected
        assert found["largest"] == 15
        assert "processes 0 and 1 were given train.steps 10 and 11;" in found["differs"]
        assert found["nobody"] is found["same data"] is None
        other = "processes 0 and 1 have other data, set 0 and set 1;"
        assert other in found["other data"]
    assert first["input"] == "InputError: process 1 failed: no such file"
    assert second["input"] == "InputError: no such file"
    assert first["broken"] == "OSError: disk full"
    assert second["broken"] == "RunError: process 0 failed: disk full"
    # The second then killed itself, and the first does not wait for it.
    assert (code, killed) == (1, -9)
    assert "RunError: what the processes compute together failed" in err


@pytest.mark.slow
def test_processes_that_do_not_answer_are_given_up() -> None:
    for me in (0, 1):
        ((code, _, err),) = run("join(JOIN_SECONDS=1)", 2, [me])
        assert code == 1
        assert "no answer from all of 2 processes at 127.0.0.1:" in err


def test_what_cannot_be_joined_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", refuse)
    with pytest.raises(InputError, match=r"cannot be joined \(coordinator_address .*"):
        processes.join("", 0, -1)


def test_processes_of_unequal_devices_are_refused() -> None:
    unequal = 'jax.config.update("jax_num_cpu_devices", 1 + me); join()'
    for code, _, err in run(unequal, 2, [0, 1]):
        assert code == 1
        assert "got processes of [1, 2] devices, need as many of each" in err


def test_one_process_is_all_there_are() -> None:
    assert processes.is_first() and processes.gather([1]) == [[1]]
    assert processes.largest(3) == 3
    with pytest.raises(ValueError, match="its own"), processes.together() as meet:
        meet()
        raise ValueError("its own")


def test_a_mesh_takes_as_many_devices_of_each_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel.jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="got 3 devices for 2 processes"):
        parallel.make_mesh(3)
    assert parallel.choose_num_devices(150, 8, 2) == 6
    assert parallel.choose_num_devices(49, 8, 2) == 2  # refused as indivisible


def test_the_parts_of_processes_make_up_each_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each picture of an epoch is in the part of exactly one process."""
    split = load.load_embedded("digits").train
    num_examples, batch_size = 48, 12
    split = type(split)(split.images[:num_examples], split.labels[:num_examples])
    how = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")
    partitioner = parallel.Partitioner(parallel.make_mesh(4))

    def make(rows: slice) -> list[dict[str, np.ndarray]]:
        made = tf_pipeline.batches(
            split,
            how,
            seed=1,
            batch_size=batch_size,
            steps=range(8),
            workers=1,
            rows=rows,
        )
        return list(made)

    # As if the mesh were two devices in each of two processes, or one in each of four.
    for num_processes in (2, 4):
        rows = []
        local = parallel.make_mesh(4 // num_processes)
        monkeypatch.setattr(parallel.Mesh, "local_mesh", local)
        for process in range(num_processes):
            monkeypatch.setattr(parallel.jax, "process_index", lambda i=process: i)
            rows.append(partitioner.rows(batch_size))
        monkeypatch.undo()
        parts = [make(part) for part in rows]
        for batch, *of_processes in zip(make(slice(None)), *parts, strict=True):
            for name, values in batch.items():
                joined = np.concatenate([part[name] for part in of_processes])
                np.testing.assert_array_equal(joined, values, err_msg=name)
        positions = np.ravel([[b["position"] for b in part] for part in parts])
        assert sorted(positions) == list(range(2 * num_examples))

        chunk = batches.chunk(
            seed=1,
            num_examples=num_examples,
            batch_size=batch_size,
            first_step=4,
            num_steps=4,
            capacity=4,
        )
        used = [chunk["index"][part] for part in rows]
        assert sorted(np.ravel(used)) == list(range(num_examples))
