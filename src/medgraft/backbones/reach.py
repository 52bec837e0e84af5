"""Whether a server can be reached at all, told within seconds: libraries try for minutes."""

import socket
import threading
import urllib.parse
import urllib.request
from typing import Final

from medgraft.errors import WeightsError

__all__ = ["demand_reachable"]

_SECONDS: Final = 4.0


def demand_reachable(address: str) -> None:
    """Refuse an address whose server, or the proxy in front of it, takes no connection within four seconds.

    Args:
        address: ``https://…``.

    Raises:
        WeightsError: It does not.
    """
    host, port = _next_hop(address)
    failures: list[str] = []
    # Looking up a name cannot be given a time limit; a thread can be left behind.
    attempt = threading.Thread(target=_connect, args=(host, port, failures), daemon=True)
    attempt.start()
    attempt.join(_SECONDS)
    if attempt.is_alive():
        failures.append(f"no answer within {_SECONDS:.0f} s")
    if failures:
        raise WeightsError(
            f"expected to reach {host}, got {failures[0]}. Without internet use --weights PATH, or carry the file "
            "here: medgraft weights import FILE --as NAME."
        )


def _next_hop(address: str) -> tuple[str, int]:
    """Whom a connection to an address is made with: its server, or the proxy that the environment names."""
    parts = urllib.parse.urlparse(address)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urllib.parse.urlparse(proxy if "://" in proxy else f"http://{proxy}")
        host = parts.hostname or ""
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def _connect(host: str, port: int, failures: list[str]) -> None:
    try:
        socket.create_connection((host, port), timeout=_SECONDS).close()
    except OSError as error:
        failures.append(f"{type(error).__name__}: {error}")
