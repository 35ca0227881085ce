"""What is printed as a run begins and ends; the bar, on a real terminal and on none."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data.dataset import Split, make_dataset
from cnnjax.models import MLP
from cnnjax.parallel import Partitioner, make_mesh
from cnnjax.reporting import console

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal, sys, time
from cnnjax.reporting import console
# A shell starts what it runs in the background with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
console.print_notice("", "a folder", "words " * 30)
with console.bar(10, 13) as advance:
    advance(10, "compiling")
    for step in range(10, 13):
        print(f"step {step}, loss=[bold]{step}.00", flush=True)
        print(f"warning {step}", file=sys.stderr)
        advance(step + 1)
        time.sleep(float(sys.argv[1]) if step == 11 else 0)
print("done")
"""
FOLDER, WORDS = "a folder", ("words " * 30).strip()
LINES = [f"step {step}, loss=[bold]{step}.00" for step in (10, 11, 12)] + ["done"]
WARNINGS = [f"warning {step}" for step in (10, 11, 12)]


PLAIN = [f"{FOLDER}; {WORDS} ", "compiling at step 10", *LINES]


def begin(pause="0", **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    environment = {
        k: v for k, v in environment.items() if k not in ("NO_COLOR", "COLUMNS")
    }
    environment |= options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, pause],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def read_all(terminal):
    """Returns what was written to the terminal until nobody holds its other end."""
    read = b""
    while True:
        try:
            some = os.read(terminal, 4096)
        except OSError:  # Linux's word for the end
            some = b""
        if not some:
            return read.decode()
        read += some


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def test_on_a_terminal_the_lines_stand_above_the_bar(terminal):
    ours, theirs = terminal
    process = begin(stdout=theirs)
    os.close(theirs)
    text = read_all(ours)
    _, err = process.communicate()
    assert process.returncode == 0, err
    # Standard error is no terminal here: it keeps its lines.
    assert err.splitlines() == WARNINGS
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    places = [plain.index(line) for line in LINES]
    assert places == sorted(places)
    lines = plain.replace("\r", "").splitlines()
    # The notice is wrapped at words; what takes long stands beside the bar.
    assert lines[0] == FOLDER and " ".join(lines[1:4]).split() == WORDS.split()
    assert max(map(len, lines[:4])) <= 80 and "left -:--:-- compiling" in plain
    assert "step 10/13 " in plain and re.search(r"13/13 .* left 0:00:00", plain)
    assert plain.rindex("13/13") < places[-1]
    for line in LINES[:3]:
        # The bar is wiped before a line, and drawn again on the one below.
        assert re.search(rf"\x1b\[2K{re.escape(line)}\r\n", text)


def test_a_killed_run_leaves_the_cursor(terminal):
    ours, theirs = terminal
    process = begin("60", stdout=theirs)
    os.close(theirs)
    text = ""
    while "step 11" not in text:
        text += os.read(ours, 4096).decode()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    text += read_all(ours)
    assert re.findall(r"\x1b\[\?25[hl]", text)[-1] == "\x1b[?25h"


def test_ctrl_c_ends_the_bar(terminal):
    ours, theirs = terminal
    process = begin("60", stdout=theirs)
    os.close(theirs)
    text = ""
    while "step 11" not in text:
        text += os.read(ours, 4096).decode()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    text += read_all(ours)
    assert re.search(r"\r\n(\x1b\[\?25h)?$", text), "the prompt gets a line of its own"


def test_on_a_pipe_nothing_changes():
    process = begin(stdout=subprocess.PIPE, env={"FORCE_COLOR": "1"})
    out, err = process.communicate()
    assert out.splitlines() == PLAIN
    assert err.splitlines() == WARNINGS


def test_on_a_dumb_terminal_nothing_changes(terminal):
    ours, theirs = terminal
    process = begin(stdout=theirs, env={"TERM": "dumb"})
    os.close(theirs)
    text = read_all(ours)
    process.communicate()
    assert text.split("\r\n")[-6:] == [*PLAIN[1:], ""]


@pytest.mark.parametrize(
    ("devices", "mode", "num_seeds", "shared"),
    [
        (4, "jit", 1, "12 of the 48 pictures of a batch on each"),
        (1, "pmap", 1, "48 of the 48 pictures of a batch on each"),
        (2, "jit", 6, "3 of the 6 seeds on each"),
    ],
)
def test_a_run_says_what_it_is_of(capsys, devices, mode, num_seeds, shared):
    partitioner = Partitioner(make_mesh(devices), mode, num_seeds)
    train = Split(np.zeros((60, 28, 28, 1), np.uint8), np.arange(60) % 3)
    test = Split(train.images[:30], train.labels[:30])
    dataset = make_dataset("made", "1.2.3", train, test, ("a", "b", "c"))
    model = MLP(num_classes=3)
    console.print_setup(model, (28, 28, 1), dataset, partitioner, batch_size=48)
    *table, data, last = capsys.readouterr().out.splitlines()
    assert re.match(r"all +236,403 +236,100$", table[-2]), "parameters, multiply-adds"
    assert [line.split()[0] for line in table[:3]] == ["layer", "hidden", "logits"]
    assert data == "data: made 1.2.3, 3 classes, 60 training and 30 test pictures"
    assert last == f"devices: {devices} x cpu ({mode}), {shared}"
