"""Whether a host answers, and how long a download from it takes."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit

# Longest time that `reachable` takes, including the name look-up, and longest time for
# one of a host's addresses: the first may be silent, as where IPv6 does not work.
PROBE_SECONDS, ADDRESS_SECONDS = 8.0, 3.0

# Slowest and fastest rate in bytes per second. CIFAR's host has been slow since June
# 2026 (pytorch/vision#9536, keras#23699); for others a common range is assumed.
HOST_RATES = {"www.cs.toronto.edu": (55e3, 85e3)}
USUAL_RATES = (1e6, 10e6)


def reachable(url: str) -> bool:
    """Returns within `PROBE_SECONDS` whether the host of a URL accepts connections.

    If the environment names a proxy for the URL, the proxy is tried instead.
    """
    # Imported when used: it takes a tenth of a second, and most runs ask no host.
    from requests.utils import get_environ_proxies, select_proxy

    answers = []

    def connect() -> None:
        # ValueError: what is no address, or an invalid port.
        with contextlib.suppress(OSError, ValueError):
            asked = select_proxy(url, get_environ_proxies(url)) or url
            # A proxy without a scheme speaks HTTP, as in `requests`.
            parts = urlsplit(asked if "://" in asked else f"http://{asked}")
            port = parts.port or (443 if parts.scheme == "https" else 80)
            address = (parts.hostname, port)
            with socket.create_connection(address, timeout=ADDRESS_SECONDS):
                answers.append(True)

    # A name look-up has no timeout: if it takes too long, its thread is abandoned.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)


def at_mirror(mirror: str, file: str) -> str:
    """Returns the address of a file in the folder that a mirror names, with its query.

    A mirror whose path ends as an archive's is the address of the file itself.
    """
    parts = urlsplit(mirror)
    if parts.path.endswith((".gz", ".tgz")):
        return mirror
    return parts._replace(path=f"{parts.path.rstrip('/')}/{file}").geturl()


def estimate(url: str, size: int) -> str:
    """Returns a text about how many minutes a download of `size` bytes takes."""
    host = urlsplit(url).hostname or ""
    slow, fast = HOST_RATES.get(host, USUAL_RATES)
    return (
        f"{size / 1e6:.0f} MB from {host}, about {size / fast / 60:.0f} to "
        f"{max(1, size / slow / 60):.0f} minutes at {fast / 1e3:.0f} to "
        f"{slow / 1e3:.0f} kB/s"
    )
