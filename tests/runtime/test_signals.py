"""The first signal asks, a second kills, and nothing stays behind."""

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cnnjax.errors import RunError
from cnnjax.runtime.signals import (
    KILLING,
    STOPPING,
    WARNING,
    StopRequestedError,
    stop_requests,
)


def handlers() -> list[object]:
    return [signal.getsignal(signum) for signum in STOPPING]


@pytest.mark.parametrize(
    ("signum", "exit_code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
        (signal.SIGUSR1, 128 + signal.SIGUSR1),
        (signal.SIGUSR2, 128 + signal.SIGUSR2),
        (signal.SIGXCPU, 128 + signal.SIGXCPU),
    ],
)
def test_the_first_signal_asks(
    signum: signal.Signals, exit_code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = handlers()
    with stop_requests() as stop:
        assert stop.signum is None
        os.kill(os.getpid(), signum)
        assert stop.signum == signum
        killing = [signal.getsignal(killing) for killing in KILLING]
        assert (killing == [signal.SIG_DFL] * 2) == (signum in KILLING)
    assert capfd.readouterr().out.startswith(f"{signum.name}: saving after the step, ")
    assert handlers() == before
    error = StopRequestedError(signum, "stopped")
    assert (str(error), error.exit_code) == ("stopped", exit_code)


def test_what_machines_send_never_kills(capfd: pytest.CaptureFixture[str]) -> None:
    """A shell repeats SIGHUP; SLURM sends SIGTERM after a signal that was asked for."""
    with stop_requests() as stop:
        for signum in (signal.SIGUSR1, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), signum)
        assert stop.signum == signal.SIGUSR1, "the first counts"
    assert capfd.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("signum", WARNING)
def test_what_is_ignored_stays_so(signum: signal.Signals) -> None:
    """As SIGHUP after `nohup`."""
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signum)
            assert stop.signum is None
    finally:
        signal.signal(signum, before)


def test_a_pipe_that_nobody_reads_asks() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe, contextlib.redirect_stdout(pipe):
        with pytest.raises(StopRequestedError) as stopped, stop_requests() as stop:
            print("a", flush=True)
            assert stop.signum == signal.SIGPIPE
            print("b", flush=True)  # to nowhere
            raise StopRequestedError(stop.signum, "stopped")
        print("c", flush=True)
    assert stopped.value.exit_code == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="is Linux's")
@pytest.mark.parametrize("redirect", ["redirect_stdout", "redirect_stderr"])
def test_output_to_a_full_disk_asks_and_is_named(redirect: str) -> None:
    with open("/dev/full", "w") as full, getattr(contextlib, redirect)(full):
        stream = "out" if redirect == "redirect_stdout" else "err"
        with (
            pytest.raises(RunError, match=r"written: .*No space left") as stopped,
            stop_requests() as stop,
        ):
            print("a", file=getattr(sys, f"std{stream}"), flush=True)
            raise StopRequestedError(stop.signum, "stopped")
    assert not isinstance(stopped.value, StopRequestedError)


def test_another_thread_leaves_handlers_and_streams_to_the_main_one() -> None:
    """Python lets only the main thread set them; `train` may be called in any."""

    def inside() -> list[object]:
        with stop_requests() as stop:
            assert stop.signum is None
            return [*handlers(), sys.stdout, sys.stderr]

    before = [*handlers(), sys.stdout, sys.stderr]
    with ThreadPoolExecutor() as pool:
        assert pool.submit(inside).result() == before


def test_the_handlers_are_put_back_after_an_error() -> None:
    before = handlers()
    with pytest.raises(ZeroDivisionError), stop_requests():
        assert handlers() != before
        raise ZeroDivisionError
    assert handlers() == before


@pytest.mark.parametrize("first", KILLING)
@pytest.mark.parametrize("second", KILLING)
def test_the_second_signal_kills(first: signal.Signals, second: signal.Signals) -> None:
    program = """
import time
from cnnjax.runtime.signals import stop_requests
with stop_requests():
    print("ready", flush=True)
    for _ in range(600):
        time.sleep(0.1)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert "a second SIGTERM or Ctrl-C kills at once" in process.stdout.readline()
        assert process.poll() is None
        process.send_signal(second)
        # As the kernel says, or as a shell does where Python was too busy to let it.
        assert process.wait(timeout=30) in (-second, 128 + second)


def test_a_signal_in_the_middle_of_printing() -> None:
    """The message must not go through the buffer that is being written to."""
    program = """
import os, sys, threading, time
from cnnjax.runtime.signals import stop_requests

def interrupt():
    time.sleep(0.5)
    os.kill(os.getpid(), 15)
    time.sleep(0.5)
    os.read(reader, 1 << 22)
    os.read(reader, 1 << 22)

stderr = os.fdopen(os.dup(1), "w")
reader, writer = os.pipe()
sys.stdout = os.fdopen(writer, "w")
with stop_requests() as stop:
    threading.Thread(target=interrupt, daemon=True).start()
    # More than a pipe holds: it blocks until it is read, and the signal comes first.
    print("x" * 70_000, flush=True)
    print(stop.signum, file=stderr, flush=True)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "15"


def test_while_python_is_kept_waiting() -> None:
    """As in a compilation: no handler of Python's is called before it is over."""
    program = """
import hashlib, threading
from cnnjax.runtime.signals import stop_requests
with stop_requests():
    # Once the call below is on: a signal before it would be Python's to handle.
    threading.Timer(0.5, print, ["ready"], {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline().startswith("SIGTERM: saving after the step")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
