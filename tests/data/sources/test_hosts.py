import io
import socket
import time

from cnnjax.data.sources import hosts

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


def test_estimate_takes_the_rates_of_the_host():
    # 170,052,171 bytes at 85,000 and 55,000 a second.
    assert "about 33 to 52 minutes" in hosts.estimate(URL, 170_052_171)
    assert "about 1 to 10 minutes" in hosts.estimate("https://a.org/b", 600_000_000)


def test_reachable_asks_the_host_or_the_proxy(monkeypatch):
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable.upper(), raising=False)
        monkeypatch.delenv(variable, raising=False)
    asked = []

    def connect(address, timeout):
        asked.append(address)
        return io.BytesIO()

    monkeypatch.setattr(socket, "create_connection", connect)
    assert hosts.reachable(URL)
    assert hosts.reachable("http://a.org:8080/b")
    monkeypatch.setenv("https_proxy", "http://proxy.local:3128")
    assert hosts.reachable(URL)
    monkeypatch.setenv("https_proxy", "proxy.local:3129")  # as requests takes it
    assert hosts.reachable(URL)
    monkeypatch.setenv("https_proxy", "http://proxy.local:port")
    assert not hosts.reachable(URL)
    monkeypatch.setenv("https_proxy", "http://[proxy")
    assert not hosts.reachable(URL)
    monkeypatch.delenv("https_proxy")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.local:3130")
    assert hosts.reachable(URL)
    assert not hosts.reachable("https://[a")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert hosts.reachable("https://127.0.0.1/a")
    expected = ["www.cs.toronto.edu", 443, "a.org", 8080]
    expected += ["proxy.local", 3128, "proxy.local", 3129, "proxy.local", 3130]
    expected += ["127.0.0.1", 443]
    assert [part for address in asked for part in address] == expected


def test_a_silent_address_of_a_host_is_not_its_last(monkeypatch):
    def look_up(*_, **__):
        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        return [(*kind, ("192.0.2.1", 80)), (*kind, ("127.0.0.1", 80))]

    class Socket:
        def __init__(self, *_):
            self.timeout = 0.0

        def settimeout(self, seconds):
            self.timeout = seconds

        def connect(self, address):
            if address[0] == "192.0.2.1":
                time.sleep(self.timeout)
                raise TimeoutError

        def close(self):
            pass

        __enter__ = __exit__ = lambda self, *_: None

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(hosts, "ADDRESS_SECONDS", 0.1)
    assert hosts.reachable("http://a.org/b")


def test_reachable_gives_up_on_a_name_server_that_does_not_answer(monkeypatch):
    def wait(*_, **__):
        time.sleep(2)
        raise socket.gaierror("timed out")

    monkeypatch.setattr(socket, "create_connection", wait)
    monkeypatch.setattr(hosts, "PROBE_SECONDS", 0.2)
    start = time.monotonic()
    assert not hosts.reachable(URL)
    assert time.monotonic() - start < 1.5
