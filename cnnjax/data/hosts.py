"""Whether the host of a data set answers, and how long it will take."""

import contextlib
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

# Deciding whether there is a network takes at most this long, name look-up included.
PROBE_SECONDS = 8.0

# Bytes a second, slowest and fastest. CIFAR's host has been slow since June 2026
# (pytorch/vision#9536, keras#23699); for others a common range is assumed.
HOST_RATES = {"www.cs.toronto.edu": (55e3, 85e3)}
USUAL_RATES = (1e6, 10e6)


def reachable(url: str) -> bool:
    """Says within `PROBE_SECONDS` whether the host of a URL accepts connections.

    Where the environment names a proxy for the URL, it is asked about the proxy.
    """
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        # Without a scheme it speaks HTTP, as requests has it, which downloads.
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    answers = []

    def connect() -> None:
        with contextlib.suppress(OSError, ValueError):  # of a port that is none
            port = parts.port or (443 if parts.scheme == "https" else 80)
            address = (parts.hostname, port)
            with socket.create_connection(address, timeout=PROBE_SECONDS):
                answers.append(True)

    # A name look-up has no timeout of its own: it is left behind in its thread.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)


def estimate(url: str, size: int) -> str:
    """Says how long `size` bytes take at the rates reported for the host.

    minutes = size / rate / 60, at the fastest and the slowest rate.
    """
    host = urlsplit(url).hostname or ""
    slow, fast = HOST_RATES.get(host, USUAL_RATES)
    return (
        f"{size / 1e6:.0f} MB from {host}, about {size / fast / 60:.0f} to "
        f"{max(1, size / slow / 60):.0f} minutes at {fast / 1e3:.0f} to "
        f"{slow / 1e3:.0f} kB/s"
    )
