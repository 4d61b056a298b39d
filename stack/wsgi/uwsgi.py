"""The uwsgi protocol: a packet of variables in front of the request's body. No I/O.

Packet: modifier1 (one byte, 0 for WSGI), size of the variables (two bytes, little-endian), modifier2 (one byte); then
each variable as size, name, size, value. So variables have 65535 bytes at most; nginx refuses a longer request itself
("uwsgi request is too big", status 500). No buffer needs to be raised for so much, as uWSGI's `buffer-size` does.
"""

from __future__ import annotations

from .http import HEAD_LIMIT
from .protocol import ProtocolError
from .variables import passed

HEADER = 4  # bytes before the variables


def variables(buffer: bytes, limit: int = HEAD_LIMIT) -> tuple[dict[str, str], int] | None:
    """The variables that `buffer` begins with, as latin-1 text, and the packet's size; None if it is not complete.

    They may have `limit` bytes.

    Raises:
        ProtocolError: 400, modifier1 is not 0, or a size points outside the packet; 431, it is too large.
    """
    if not buffer:
        return None
    if buffer[0] != 0:
        raise ProtocolError(400, f"uwsgi modifier1 {buffer[0]}; only 0, a WSGI request, is served")
    if len(buffer) < HEADER:
        return None
    size = buffer[1] | buffer[2] << 8
    if size > limit:
        raise ProtocolError(431, f"a head over {limit} bytes (--max-head)")
    end = HEADER + size
    if len(buffer) < end:
        return None
    return passed(pairs(buffer[:end])), end


def pairs(packet: bytes) -> list[tuple[str, str]]:
    """The names and values that a whole packet has.

    Raises:
        ProtocolError: 400, a size points outside of it.
    """
    text = packet.decode("latin-1")
    end = len(packet)
    found: list[tuple[str, str]] = []
    position = HEADER
    try:
        while position < end:
            name_at = position + 2
            value_size_at = name_at + (packet[position] | packet[position + 1] << 8)
            value_at = value_size_at + 2
            position = value_at + (packet[value_size_at] | packet[value_size_at + 1] << 8)
            found.append((text[name_at:value_size_at], text[value_at:position]))
    except IndexError:
        position = end + 1
    if position > end:  # only the last can: the others have ended before
        raise ProtocolError(400, "a uwsgi variable reaches beyond its packet")
    return found
