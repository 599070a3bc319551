"""Connections to the public internet and to nothing else: addresses are resolved once, judged, and then used.

A name that a model or a page gives may lead to this machine or its neighbours (SSRF, OWASP's prevention sheet). Here
every address that the name has must be a public one, and the connection goes to an address that was judged: a name that
resolves otherwise a moment later changes nothing. Addresses of IPv4 inside IPv6 are judged as what they lead to.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore2

from gradus.core.errors import ToolError
from gradus.tools.deadline import Deadline

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Public by the tables of some versions of Python, and not by IANA's.
_SPECIAL = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "fec0::/10"))
_MOST_WAIT_SECONDS = 10.0  # for one piece of an answer

Resolve = Callable[[str, int], Sequence[str]]
"""From a host and a port to all its addresses; OSError where it has none."""
Connect = Callable[[str, int, float], httpcore2.NetworkStream]
"""A connection to an address and a port, within so many seconds; httpcore2's errors."""


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet."""
    address: _Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            address = inner
    special = any(address in network for network in _SPECIAL)
    return address.is_global and not (special or address.is_multicast or address.is_reserved)


def resolved(host: str, port: int) -> Sequence[str]:
    """Every address that the system knows for a host; numbers in any spelling are addresses too."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def connected(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
    """A TCP connection."""
    return httpcore2.SyncBackend().connect_tcp(address, port, timeout=seconds)


class PublicNetwork(httpcore2.NetworkBackend):
    """Connects an HTTP client of httpcore2 to public addresses only, and no longer than a call has time."""

    def __init__(self, deadline: Deadline, resolve: Resolve = resolved, connect: Connect = connected) -> None:
        self._deadline, self._resolve, self._connect = deadline, resolve, connect

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Errors: ToolError where the host has no address, or one that is not public."""
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError):
            raise ToolError(f"no such host: {host[:100]}") from None
        if not addresses or not all(map(is_public, addresses)):
            raise ToolError(f"{host[:100]} is no public address; only pages of the public internet are fetched")
        fault: Exception | None = None
        for address in addresses:
            try:
                stream = self._connect(address, port, min(_MOST_WAIT_SECONDS, self._deadline.seconds_left()))
                return _TimedStream(stream, self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                fault = error
        assert fault is not None
        raise fault


class _TimedStream(httpcore2.NetworkStream):
    """A connection whose every wait ends with the time of the call, however slowly the other side drips."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def _seconds(self) -> float:
        return min(_MOST_WAIT_SECONDS, self._deadline.seconds_left())

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._seconds())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._seconds())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._seconds()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
