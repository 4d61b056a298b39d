"""The uwsgi protocol: a packet of variables in front of the request's body. No I/O.

Packet: modifier1 (one byte, 0 for WSGI), size of the variables (two bytes, little-endian), modifier2 (one byte); then
each variable as size, name, size, value. So variables have 65535 bytes at most; nginx refuses a longer request itself
("uwsgi request is too big", status 500). There is no buffer here to be raised, as uWSGI's `buffer-size` is.
"""

from __future__ import annotations

from .http import LENGTH
from .protocol import ProtocolError

HEADER = 4  # bytes before the variables


def variables(buffer: bytes) -> tuple[dict[str, str], int] | None:
    """The variables that `buffer` begins with, as latin-1 text, and the packet's size; None if it is not complete.

    Dropped: `UWSGI_*` (uWSGI loads files at their word), whatever has not the form of a CGI variable (`wsgi.input`),
    HTTP_PROXY (CVE-2016-5385), and the twins HTTP_CONTENT_TYPE, HTTP_CONTENT_LENGTH and HTTP_TRANSFER_ENCODING. A
    repeated header is joined.

    Raises:
        ProtocolError: 400, modifier1 is not 0, or a size points outside the packet.
    """
    if not buffer:
        return None
    if buffer[0] != 0:
        raise ProtocolError(400, f"uwsgi modifier1 {buffer[0]}; only 0, a WSGI request, is served")
    if len(buffer) < HEADER:
        return None
    end = HEADER + (buffer[1] | buffer[2] << 8)
    if len(buffer) < end:
        return None
    try:
        return _unpacked(buffer, end), end
    except IndexError:
        raise ProtocolError(400, "a uwsgi variable reaches beyond its packet") from None


def _unpacked(buffer: bytes, end: int) -> dict[str, str]:
    text = buffer[:end].decode("latin-1")
    found: dict[str, str] = {}
    position = HEADER
    while position < end:
        name_at = position + 2
        value_size_at = name_at + (buffer[position] | buffer[position + 1] << 8)
        value_at = value_size_at + 2
        position = value_at + (buffer[value_size_at] | buffer[value_size_at + 1] << 8)
        if value_at > end or position > end:
            raise ProtocolError(400, "a uwsgi variable reaches beyond its packet")
        name = text[name_at:value_size_at]
        known = _known.get(name)
        if known is None:
            known = _know(name)
        if known:
            value = text[value_at:position]
            if name in found and name.startswith("HTTP_"):
                value = f"{found[name]}{'; ' if name == 'HTTP_COOKIE' else ','}{value}"
            found[name] = value
    return found


def length(found: dict[str, str]) -> int:
    """The size of the body, in bytes. No CONTENT_LENGTH, or an empty one, means none.

    Raises:
        ProtocolError: 400, it is not a number.
    """
    text = found.get("CONTENT_LENGTH")
    if not text:
        return 0
    if not LENGTH.fullmatch(text):
        raise ProtocolError(400, "a malformed CONTENT_LENGTH")
    return int(text)


_DROPPED = frozenset({"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"})
_known: dict[str, bool] = {}


def _know(name: str) -> bool:
    """Whether a variable is passed on: capital letters, digits, underscores, and none of the dropped."""
    plain = name.isascii() and name.replace("_", "A").isalnum() and name == name.upper()
    passed = plain and name not in _DROPPED and not name.startswith("UWSGI_")
    if len(_known) < 1024:  # header names come from clients: no more than can be honest
        _known[name] = passed
    return passed
