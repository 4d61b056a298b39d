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
    FASTCGI = "fastcgi"
    SCGI = "scgi"

    __hash__ = object.__hash__  # there is one of each; Enum's own is a function of Python's


def spoken(first: int) -> Protocol | None:
    """The protocol that a connection beginning with this byte speaks; None if we do not speak it.

    uwsgi: modifier1 is 0 for a WSGI request. HTTP: a method; all registered ones are capital letters (RFC 9110 9.1).
    FastCGI: the version is 1 (3.3). SCGI: a netstring's size.
    """
    return _SPOKEN.get(first)


_SPOKEN = {
    **dict.fromkeys(range(0x41, 0x5B), Protocol.HTTP),
    0x00: Protocol.UWSGI,
    0x01: Protocol.FASTCGI,
    **dict.fromkeys(range(0x30, 0x3A), Protocol.SCGI),
}


def name(first: int) -> str:
    """What a first byte that is refused most likely means, for the log."""
    found = spoken(first)
    if found is not None:
        return f"0x{first:02x}: {_NAMES[found]}, which this address does not take (--protocol {found.value})"
    if 0x61 <= first <= 0x7A:
        return f"0x{first:02x}: an HTTP method in small letters, which does not exist"
    return f"0x{first:02x}: {_FOREIGN.get(first, 'none of HTTP, uwsgi with modifier1 0, FastCGI and SCGI')}"


_NAMES = {Protocol.HTTP: "HTTP", Protocol.UWSGI: "uwsgi", Protocol.FASTCGI: "FastCGI", Protocol.SCGI: "SCGI"}
_FOREIGN = {
    0x0D: "the PROXY protocol, version 2, which is not spoken here",
    0x16: "a TLS handshake; TLS ends at the web server, here is plain HTTP",
}
