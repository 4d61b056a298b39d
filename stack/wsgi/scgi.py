"""SCGI: a netstring of variables in front of the request's body. No I/O.

Source: "SCGI: A Simple Common Gateway Interface alternative". Netstring: the size in decimal, ":", the variables, ",".
Variables: name, NUL, value, NUL, and so on. CONTENT_LENGTH comes first, SCGI=1 somewhere. The answer begins as that
of a CGI program does (RFC 3875 6), and its end is the end of the connection.
"""

from __future__ import annotations

import re

from .http import HEAD_LIMIT, LENGTH
from .protocol import ProtocolError
from .variables import passed

SIZE = re.compile(rb"[1-9][0-9]*")  # netstrings have no leading zeros


def variables(buffer: bytes, limit: int = HEAD_LIMIT) -> tuple[dict[str, str], int] | None:
    """The variables that `buffer` begins with, as latin-1 text, and the netstring's size; None if it is not complete.

    They may have `limit` bytes. A header that comes twice is joined, for web servers pass them on as they came; the
    length of a body has one value.

    Raises:
        ProtocolError: 400, this is no SCGI request; 431, it is too large.
    """
    longest = len(str(limit))
    digits, colon, _ = buffer[: longest + 1].partition(b":")
    if (digits or colon) and (not SIZE.fullmatch(digits) or len(digits) > longest):
        raise ProtocolError(400, "an SCGI request that does not begin with its size")
    if not colon:
        return None
    size, start = int(digits), len(digits) + 1
    if size > limit:
        raise ProtocolError(431, f"a head over {limit} bytes (--max-head)")
    end = start + size
    if len(buffer) <= end:
        return None
    if buffer[end] != ord(","):
        raise ProtocolError(400, "an SCGI head that is not as long as its size")
    *parts, last = buffer[start:end].decode("latin-1").split("\0")
    if last or len(parts) % 2:
        raise ProtocolError(400, "an SCGI variable without a value, or without its end")
    names = parts[::2]
    if names[0] != "CONTENT_LENGTH" or names.count("CONTENT_LENGTH") > 1 or not LENGTH.fullmatch(parts[1]):
        raise ProtocolError(400, "an SCGI request that does not begin with its one CONTENT_LENGTH")
    found = passed([*zip(names, parts[1::2], strict=True)])
    if found.get("SCGI") != "1":
        raise ProtocolError(400, "an SCGI request without SCGI=1")
    return found, end + 1
