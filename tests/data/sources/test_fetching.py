"""Downloads from a local server that is slow, breaks off, lies or sends other files."""

import contextlib
import hashlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.data.dataset import MissingDatasetError
from cnnjax.data.sources import fetching, hosts
from cnnjax.errors import InputError, RunError

CONTENT = np.random.default_rng(0).bytes(10_000)
OTHER = np.random.default_rng(1).bytes(10_000)
REPOSITORY = Path(__file__).resolve().parents[3]


class Handler(BaseHTTPRequestHandler):
    """Notes what is asked for, and answers as the server's `answer` says."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append(self.headers["Range"])
        self.server.encodings.append(self.headers["Accept-Encoding"])
        self.close_connection = True
        # The client may go away.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answer(self)

    def start(self, status: int, **headers: object) -> None:
        """Sends the head of an answer: Content_Length=5 is Content-Length: 5."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def ranged(self, content: bytes, cut: int | None = None) -> None:
        """Answers as a good server does, but sends at most `cut` bytes."""
        asked = self.headers["Range"]
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        size = len(content)
        if asked and first >= size:
            self.start(416, Content_Range=f"bytes */{size}", Content_Length=0)
            return
        span = {"Content_Range": f"bytes {first}-{size - 1}/{size}"} if asked else {}
        self.start(206 if asked else 200, Content_Length=size - first, **span)
        body = content[first:][:cut]
        # Before the client has it, so that no later test counts it.
        self.server.sent += len(body)
        self.wfile.write(body)

    def whole(self, content: bytes, length: int | None = None) -> None:
        """Answers without regard to ranges, and with a length that may be wrong."""
        self.start(200, Content_Length=len(content) if length is None else length)
        self.wfile.write(content)

    def chunked(self, pieces: Iterator[bytes], end: bytes = b"0\r\n\r\n") -> None:
        self.protocol_version = "HTTP/1.1"
        self.start(200, Transfer_Encoding="chunked")
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(end)

    def log_message(self, *_: object) -> None:
        """Stays silent."""


class Server(ThreadingHTTPServer):
    """A server on this machine.

    Attributes:
        answer: what it does at a request.
        asked: the ranges of the requests so far, None where none was asked for.
        encodings: the encodings that the requests accept.
        sent: bytes of bodies that were sent by `Handler.ranged`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[Handler], None] = lambda handler: handler.ranged(CONTENT)
        self.asked: list[str | None] = []
        self.encodings: list[str] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.tar.gz"

    def answers(self, *answers: Callable[[Handler], None]) -> None:
        """Takes one answer after the other, and then the last one again and again."""
        left = list(answers)

        def answer(handler: Handler) -> None:
            (left.pop(0) if len(left) > 1 else left[0])(handler)

        self.answer = answer


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def reset(server: Server) -> Server:
    server.answers(lambda handler: handler.ranged(CONTENT))
    server.asked, server.encodings, server.sent = [], [], 0
    return server


@pytest.fixture
def server(running: Server) -> Server:
    return reset(running)


@pytest.fixture
def second() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "PAUSES", (0.0, 0.0, 0.0))
        patch.setattr(fetching, "READ_SECONDS", 0.3)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.tar.gz"


def verify(path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != hashlib.sha256(CONTENT).hexdigest():
        raise InputError(f"{path.name} has another SHA-256")


def fetch(target: Path, *urls: str) -> str:
    return fetching.fetch(urls, target, verify, len(CONTENT))


def part_of(target: Path, content: bytes | None = None) -> Path:
    part = target.with_name(f"{target.name}.part")
    if content is not None:
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(content)
    return part


def left_beside(target: Path) -> list[str]:
    names = sorted(path.name for path in target.parent.iterdir())
    return [name for name in names if not name.endswith(".lock")]


def assert_fetched(target: Path) -> None:
    assert target.read_bytes() == CONTENT
    assert left_beside(target) == [target.name]


def assert_refused(target: Path, server: Server, why: str, part: bytes = b"") -> None:
    """The file is not available; only a promising part stays."""
    with pytest.raises(MissingDatasetError, match=why) as caught:
        fetch(target, server.url)
    assert "\n" not in str(caught.value)
    assert f"{server.url}: " in str(caught.value)
    assert ("which goes on from" in str(caught.value)) == bool(part)
    assert left_beside(target) == ([part_of(target).name] if part else [])
    assert not part or part_of(target).read_bytes() == part


def test_file_is_downloaded_and_verified(server, target, capfd):
    seen = []

    def check(path):
        seen.append(path)
        verify(path)

    found = fetching.fetch([server.url], target, check, len(CONTENT))
    assert found == server.url
    assert_fetched(target)
    assert seen == [part_of(target)]
    assert (server.asked, server.encodings) == ([None], ["identity"])
    said = capfd.readouterr()
    assert said.err.splitlines() == [
        f"downloading {server.url} to {target}: 0.0 MB",
        f"{target} is complete and verified",
    ]
    assert said.out == ""


def test_file_that_is_there_is_verified_and_not_fetched_again(server, target):
    fetch(target, server.url)
    assert fetch(target, server.url) == ""
    target.write_bytes(OTHER)
    with pytest.raises(InputError, match="has another SHA-256"):
        fetch(target, server.url)
    assert target.read_bytes() == OTHER
    assert len(server.asked) == 1


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(1, len(CONTENT) - 1), max_size=6),
    had=st.integers(0, len(CONTENT)),
    reset_connection=st.booleans(),
)
def test_broken_connections_are_continued_wherever_they_break(
    running, cuts, had, reset_connection
):
    server = reset(running)
    left = list(cuts)

    def answer(handler):
        cut = left.pop(0) if left else None
        handler.ranged(CONTENT, cut)
        if reset_connection and cut:
            linger = b"\1\0\0\0\0\0\0\0"  # on, for 0 s: the close is a reset
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(handler.connection.detach())

    server.answer = answer
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "file.tar.gz")
        part_of(target, CONTENT[:had])
        # Resets may lose all that was sent, and twice in a row is given up.
        given_up = [MissingDatasetError] * reset_connection
        while not target.exists():
            with contextlib.suppress(*given_up):
                fetch(target, server.url)
        assert_fetched(target)
    if not reset_connection:
        assert server.sent == len(CONTENT) - had


def test_stalled_connection_is_given_up_and_continued(server, target, capfd):
    stalled = threading.Event()

    def stall(handler):
        handler.ranged(CONTENT, 4000)
        handler.wfile.flush()
        stalled.wait(5)

    server.answers(stall, lambda handler: handler.ranged(CONTENT))
    fetch(target, server.url)
    stalled.set()
    assert_fetched(target)
    assert server.asked == [None, "bytes=4000-"]
    assert "sent nothing for 0.3 s; trying again in 0 s" in capfd.readouterr().err


def test_slow_server_is_no_stall(server, target):
    def trickle(handler):
        handler.start(200, Content_Length=len(CONTENT))
        for k in range(0, len(CONTENT), 1000):
            handler.wfile.write(CONTENT[k : k + 1000])
            time.sleep(0.05)

    server.answers(trickle)
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == [None]


@pytest.mark.parametrize("had", [0, 4000])
def test_tries_without_progress_are_bounded_and_keep_the_part(server, target, had):
    part_of(target, CONTENT[:had])
    server.answers(
        lambda handler: handler.ranged(CONTENT, 5000 - had),
        lambda handler: handler.ranged(CONTENT, 0),
    )
    assert_refused(target, server, "broke off the connection", CONTENT[:5000])
    assert server.asked[1:] == ["bytes=5000-"] * len(fetching.PAUSES)


def test_address_that_never_sends_anything_is_tried_twice(server, target):
    server.answers(lambda handler: handler.ranged(CONTENT, 0))
    assert_refused(target, server, "broke off the connection")
    assert len(server.asked) == 2


@pytest.mark.parametrize("had", [0, 4000])
@pytest.mark.parametrize("length", [17, len(CONTENT) - 5, len(CONTENT) + 5])
def test_file_of_another_length_is_refused_and_nothing_is_lost(
    server, second, target, had, length
):
    part_of(target, CONTENT[:had]) if had else None
    server.answers(lambda handler: handler.whole(CONTENT, length))
    why = f"has a file of {length} bytes, need one of 10000"
    assert_refused(target, server, why, CONTENT[:had])
    # With ranges, too.
    server.answers(lambda handler: handler.ranged(bytes(max(length, had + 1))))
    assert_refused(target, server, "has a file of", CONTENT[:had])
    assert len(server.asked) == 2
    assert fetch(target, server.url, second.url) == second.url
    assert_fetched(target)
    assert second.asked == [f"bytes={had}-" if had else None]


def test_part_that_is_whole_is_only_verified(server, target):
    part_of(target, CONTENT)
    assert fetch(target, server.url) == server.url
    assert_fetched(target)
    assert server.asked == []


def test_another_file_is_refused_and_the_next_address_is_tried(
    server, second, target, capfd
):
    server.answers(lambda handler: handler.ranged(OTHER))
    assert_refused(target, server, "file.tar.gz.part has another SHA-256")
    assert fetch(target, server.url, second.url) == second.url
    assert_fetched(target)
    reason = f"{server.url}: file.tar.gz.part has another SHA-256\n"
    assert reason in capfd.readouterr().err
    assert second.asked == [None]


def test_second_address_continues_what_the_first_began(server, second, target, capfd):
    server.answers(
        lambda handler: handler.ranged(CONTENT, 6000),
        lambda handler: handler.start(404),
    )
    assert fetch(target, server.url, second.url) == second.url
    assert_fetched(target)
    assert second.asked == ["bytes=6000-"]
    said = f"downloading {second.url} to {target}: 0.0 MB, going on from 0.0 MB\n"
    assert said in capfd.readouterr().err


def test_server_that_ignores_ranges_loses_nothing(server, target):
    part_of(target, CONTENT[:3000])
    server.answers(
        lambda handler: handler.whole(CONTENT[:500], len(CONTENT)),
        lambda handler: handler.whole(CONTENT),
    )
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == ["bytes=3000-", "bytes=3000-"]
    target.unlink()
    part_of(target, OTHER[:3000])
    server.answers(lambda handler: handler.whole(CONTENT))
    fetch(target, server.url)
    assert_fetched(target)


@pytest.mark.parametrize(
    "span", ["bytes 2999-9999/10000", "bytes 0-9999/10000", "bytes */10000", "x", None]
)
def test_another_range_than_was_asked_for_is_not_appended(server, target, span):
    part_of(target, CONTENT[:3000])

    def answer(handler):
        headers = {"Content_Range": span} if span else {}
        handler.start(206, Content_Length=7000, **headers)
        handler.wfile.write(CONTENT[3000:])

    # The whole is asked for then, and what is there is passed over, so that the part
    # stays if that breaks off.
    server.answers(answer, lambda handler: handler.whole(CONTENT[:10], len(CONTENT)))
    assert_refused(target, server, "broke off", CONTENT[:3000])
    assert server.asked == ["bytes=3000-", None]
    server.answers(answer, lambda handler: handler.ranged(CONTENT))
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked[2:] == ["bytes=3000-", None]


@pytest.mark.parametrize("total", ["10000", "*"])
def test_range_may_be_sent_in_pieces_and_without_a_total(server, target, total):
    part_of(target, CONTENT[:3000])

    def answer(handler):
        handler.start(
            206, Content_Range=f"bytes 3000-4999/{total}", Content_Length=2000
        )
        handler.wfile.write(CONTENT[3000:5000])

    server.answers(answer, lambda handler: handler.ranged(CONTENT))
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == ["bytes=3000-", "bytes=5000-"]


def test_server_that_gives_no_parts_gives_the_whole(server, target):
    part_of(target, CONTENT[:3000])

    def answer(handler):
        ranged = handler.headers["Range"]
        handler.start(416) if ranged else handler.whole(CONTENT)

    server.answers(answer)
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == ["bytes=3000-", None]


def test_range_that_was_not_asked_for_is_refused(server, target):
    server.answers(
        lambda handler: handler.start(206, Content_Range="bytes 0-9999/10000")
    )
    assert_refused(target, server, "HTTP status 206")


@pytest.mark.parametrize("size", [3000, 10_000, 12_000])
def test_part_of_another_file_starts_anew_once(server, target, size):
    part_of(target, (OTHER + OTHER)[:size])
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == [f"bytes={size}-", None][size >= len(CONTENT) :]


def test_file_that_changes_between_two_tries_starts_anew_once(server, target):
    server.answers(
        lambda handler: handler.ranged(OTHER, 4000),
        lambda handler: handler.ranged(CONTENT),
    )
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == [None, "bytes=4000-", None]


def test_file_that_changes_again_and_again_is_given_up(server, target):
    server.answers(
        lambda handler: handler.ranged(OTHER, 4000),
        lambda handler: handler.ranged(CONTENT),
        lambda handler: handler.ranged(OTHER, 4000),
        lambda handler: handler.ranged(CONTENT),
    )
    assert_refused(target, server, "another SHA-256")
    assert server.asked == [None, "bytes=4000-"] * 2


def send_page(handler):
    handler.start(200, Content_Type="text/html; charset=utf-8", Content_Length=6)
    handler.wfile.write(b"<html>")


@pytest.mark.parametrize("had", [0, 3000])
@pytest.mark.parametrize(
    ("answer", "why", "requests"),
    [
        (lambda handler: handler.start(404), "HTTP status 404", 1),
        (lambda handler: handler.start(500), "HTTP status 500", 2),
        (lambda handler: handler.start(204), "HTTP status 204", 1),
        (send_page, "a web page", 1),
        (lambda handler: handler.start(302, Location="ftp://x/y"), "cannot be used", 1),
        (lambda handler: handler.start(302, Location="http://[x"), "cannot be used", 1),
        (lambda handler: handler.start(302, Location="/x"), "30 redirects", 62),
        (lambda handler: handler.wfile.write(b"?\r\n\r\n"), "cannot be reached", 2),
        (lambda handler: None, "cannot be reached .*closed connection", 2),
    ],
)
def test_answer_that_is_no_file_leaves_the_part_as_it_is(
    server, target, had, answer, why, requests
):
    part_of(target, CONTENT[:had]) if had else None
    server.answers(answer)
    assert_refused(target, server, why, CONTENT[:had])
    assert len(server.asked) == requests


def test_server_in_trouble_is_tried_again(server, target):
    server.answers(
        lambda handler: handler.start(503), lambda handler: handler.ranged(CONTENT)
    )
    fetch(target, server.url)
    assert_fetched(target)


def test_redirects_are_followed_with_the_range(server, second, target):
    part_of(target, CONTENT[:3000])
    server.answers(lambda handler: handler.start(302, Location=second.url))
    assert fetch(target, server.url) == server.url
    assert_fetched(target)
    assert second.asked == ["bytes=3000-"]


def halves():
    return iter([CONTENT[:4000], CONTENT[4000:]])


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b""])
def test_chunked_file_needs_no_length(server, target, end):
    """One that ends without the last chunk is a broken connection."""
    server.answers(
        lambda handler: handler.chunked(halves(), end),
        lambda handler: handler.ranged(CONTENT),
    )
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == [None]


def test_file_may_end_with_the_connection(server, target):
    def answer(handler):
        handler.start(200)
        handler.wfile.write(CONTENT)

    server.answers(answer)
    fetch(target, server.url)
    assert_fetched(target)


@pytest.mark.parametrize("had", [0, 3000])
def test_endless_body_does_not_fill_the_disk(server, target, had, monkeypatch):
    monkeypatch.setattr(fetching, "PIECE", 1000)
    part_of(target, CONTENT[:had])
    largest = 0

    def endless():
        nonlocal largest
        while True:
            yield OTHER
            largest = max(largest, part_of(target).stat().st_size)

    server.answers(lambda handler: handler.chunked(endless()))
    why = "sends more than the file's 10000 bytes"
    assert_refused(target, server, why, CONTENT[:had])
    assert largest <= 10_000


def test_compressed_archive_is_kept_as_it_is_sent(server, target):
    """Some servers say of a .tar.gz that its encoding is gzip."""

    def answer(handler):
        handler.start(200, Content_Length=10_000, Content_Encoding="gzip")
        handler.wfile.write(CONTENT)

    server.answers(answer)
    fetch(target, server.url)
    assert_fetched(target)


def test_proxy_of_the_environment_is_used(server, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    fetch(target, "http://nowhere.invalid/file")
    assert_fetched(target)


def test_unreachable_hosts_are_named_with_the_reason(target, monkeypatch):
    look_up = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        refused = f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}/x"
        with pytest.raises(MissingDatasetError) as caught:
            fetch(target, refused, "http://nowhere.invalid/x", "http://:80/")
    said = str(caught.value)
    assert "Connection refused" in said and "secret" not in said
    assert re.search(r"invalid/x: cannot be reached \(.*Name or service not", said)
    assert "http://:80/: cannot be used (" in said
    assert said.endswith("; try again later or give another address")
    assert left_beside(target) == []


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/hosts", "host/file"])
def test_other_schemes_are_refused_before_anything_is_asked(server, target, url):
    with pytest.raises(InputError, match="need one that begins with http://"):
        fetch(target, server.url, url)
    assert not server.asked and not target.parent.exists()


def test_unwritable_folder_is_named(server, target):
    target.parent.write_text("a file")
    with pytest.raises(
        InputError, match=r"cannot be written \(File exists\)"
    ) as caught:
        fetch(target, server.url)
    assert not isinstance(caught.value, MissingDatasetError)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="is Linux's")
def test_full_disk_is_an_error_of_the_run(server, target):
    target.parent.mkdir()
    part_of(target).symlink_to("/dev/full")
    with pytest.raises(RunError, match="the disk is full where") as caught:
        fetch(target, server.url)
    assert "\n" not in str(caught.value)


PROGRAM = """
import hashlib, signal, sys
from pathlib import Path
from cnnjax.data.sources import fetching
# A shell has its background jobs ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from cnnjax.errors import InputError

url, target, digest = sys.argv[1:]

def verify(path):
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise InputError("another file")

print(repr(fetching.fetch([url], Path(target), verify, 10_000)))
"""


def start_process(server: Server, target: Path) -> subprocess.Popen[str]:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(target), digest],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_part(target: Path, size: int) -> None:
    until = time.monotonic() + 30
    while not part_of(target).exists() or part_of(target).stat().st_size < size:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_killed_process_is_continued_by_the_next(server, target, signum):
    killed = threading.Event()

    def hold(handler):
        handler.ranged(CONTENT, 9000)
        handler.wfile.flush()
        killed.wait(30)

    server.answers(hold, lambda handler: handler.ranged(CONTENT))
    with start_process(server, target) as process:
        wait_for_part(target, 9000)
        process.send_signal(signum)
        process.wait(30)
    killed.set()
    assert process.returncode == -signum
    assert left_beside(target) == [part_of(target).name]
    fetch(target, server.url)
    assert_fetched(target)
    assert server.asked == [None, "bytes=9000-"]
    assert server.sent == len(CONTENT)


def test_second_process_waits_for_the_file_of_the_first(server, target):
    waits = threading.Event()

    def hold(handler):
        handler.start(200, Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT[:9000])
        handler.wfile.flush()
        waits.wait(30)
        handler.wfile.write(CONTENT[9000:])

    server.answers(hold)
    with start_process(server, target) as first:
        wait_for_part(target, 1)
        with start_process(server, target) as other:
            line = other.stderr.readline()
            waits.set()
            ends = [process.communicate(timeout=30) for process in (first, other)]
    assert line == f"another process fetches or prepares {target}: waiting for it\n"
    assert [out for out, _ in ends] == [f"{server.url!r}\n", "''\n"]
    assert ends[1] == ("''\n", "")
    assert_fetched(target)
    assert server.asked == [None]


def test_lines_tell_speed_and_time_left(server, target, monkeypatch, capfd):
    monkeypatch.setattr(fetching, "LINE_SECONDS", 0)
    monkeypatch.setattr(fetching, "PIECE", 2500)
    fetch(target, server.url)
    lines = capfd.readouterr().err.splitlines()[1:-1]
    pattern = r"0\.0 MB at \d+ kB/s, 0:00:00 left of 0\.0 MB"
    assert lines and all(re.fullmatch(pattern, line) for line in lines)


def test_nobody_need_read_what_is_said(server, target, monkeypatch):
    def broken(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "write", broken)
    fetch(target, server.url)
    assert_fetched(target)


def test_lines_are_few(server, target, capfd):
    fetch(target, server.url)
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_terminal_shows_a_bar(server, target, monkeypatch, capfd):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    part_of(target, CONTENT[:3000])
    fetch(target, server.url)
    assert_fetched(target)
    drawn = terminal.getvalue()
    assert "0.0 MB, going on from 0.0 MB\n" in drawn
    assert "10.0/10.0 kB" in drawn and "kB/s at" not in drawn
    assert drawn.rindex("\x1b[?25h") >= drawn.rindex("\x1b[?25l")  # cursor is shown
    assert capfd.readouterr() == ("", "")


def test_official_host_is_announced_with_its_usual_rate(
    server, target, monkeypatch, capfd
):
    monkeypatch.setitem(hosts.HOST_RATES, "127.0.0.1", (1.0, 2.0))
    part_of(target, CONTENT[:4000])
    fetch(target, server.url)
    said = "0 MB from 127.0.0.1, about 50 to 100 minutes at 0 to 0 kB/s\n"
    assert f"going on from 0.0 MB; {said}" in capfd.readouterr().err
