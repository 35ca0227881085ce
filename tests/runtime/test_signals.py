"""The first signal asks, the second kills, and nothing stays behind."""

import os
import signal
import subprocess
import sys

import pytest

from cnnjax.runtime.signals import STOPPING, StopRequestedError, stop_requests


def handlers() -> list[object]:
    return [signal.getsignal(signum) for signum in STOPPING]


@pytest.mark.parametrize(
    ("signum", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_the_first_signal_asks(
    signum: signal.Signals, exit_code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = handlers()
    with stop_requests() as stop:
        assert not stop
        os.kill(os.getpid(), signum)
        assert stop
        assert stop.signum == signum
        assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]
    assert capfd.readouterr().out.startswith(f"{signum.name}: saving after the step, ")
    assert handlers() == before
    error = StopRequestedError(signum)
    assert str(error) == f"stopped by {signum.name}"
    assert error.exit_code == exit_code


def test_the_handlers_are_put_back_after_an_error() -> None:
    before = handlers()
    with pytest.raises(ZeroDivisionError), stop_requests():
        assert handlers() != before
        raise ZeroDivisionError
    assert handlers() == before


@pytest.mark.parametrize("first", STOPPING)
@pytest.mark.parametrize("second", STOPPING)
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
        assert "a second signal kills at once" in process.stdout.readline()
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
