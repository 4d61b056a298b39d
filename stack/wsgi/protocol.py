"""What the protocols share: their error, and how a connection's first byte tells which one is spoken."""

from __future__ import annotations

from enum import Enum


class ProtocolError(Exception):
    """A request that is refused, with the HTTP status that the client should be told."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class Protocol(Enum):
    """A language between web server and this server."""

    HTTP = "http"
    UWSGI = "uwsgi"


def spoken(first: int) -> Protocol | None:
    """The protocol that a connection beginning with this byte speaks; None if we do not speak it.

    uwsgi: modifier1 is 0 for a WSGI request. HTTP: a method; all registered ones are capital letters (RFC 9110 9.1).
    """
    if 0x41 <= first <= 0x5A:
        return Protocol.HTTP
    return Protocol.UWSGI if first == 0x00 else None


def name(first: int) -> str:
    """What a first byte that is refused most likely means, for the log."""
    if first in _NAMES:
        return f"0x{first:02x}: {_NAMES[first]}"
    if 0x30 <= first <= 0x39:
        return f"0x{first:02x}: SCGI, which is not spoken here yet"
    if 0x61 <= first <= 0x7A:
        return f"0x{first:02x}: an HTTP method in small letters, which does not exist"
    return f"0x{first:02x}: neither HTTP nor uwsgi (or a uwsgi modifier1 other than 0)"


_NAMES = {
    0x00: "uwsgi, which this address does not take (--protocol uwsgi)",
    0x01: "FastCGI, which is not spoken here yet",
    0x0D: "the PROXY protocol, version 2, which is not spoken here",
    0x16: "a TLS handshake; TLS ends at the web server, here is plain HTTP",
}
