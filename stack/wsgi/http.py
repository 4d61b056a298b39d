"""HTTP/1.1 requests (RFC 9110, RFC 9112): bytes in, heads and body bytes out. No I/O.

`head` looks at all that has arrived of a request; it returns the head once it is complete, None if more is needed,
or raises ProtocolError. What it says does not depend on how the bytes were split on arrival. Strict where leniency
lets two servers disagree on where a request ends: no bare CR or LF, no folded lines, no space before a colon, one
Host, one length.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache, partial
from typing import NamedTuple

from .protocol import ProtocolError

# The limit of nginx's default `large_client_header_buffers` is 4 x 8 KB, of uwsgi packets 64 KB; so much passes here,
# unless `--max-head` says otherwise.
HEAD_LIMIT = 65536
CHUNK_LINE_LIMIT = 1024
TRAILER_LIMIT = 8192

# RFC 9110 5.6.2: token = 1*tchar
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - no password
# RFC 9112 3: request-line = method SP request-target SP HTTP-version. Targets may hold raw bytes over 0x7f: the RFC
# has them percent-encoded, but clients send them and web servers pass them on.
REQUEST_LINE = re.compile(rf"({TOKEN}) ([!-~\x80-\xff]+) HTTP/([0-9]\.[0-9])")
# RFC 9112 5: field-line = field-name ":" OWS field-value OWS; RFC 9110 5.5: no control characters but tab.
FIELD_LINE = re.compile(rf"^({TOKEN}):[ \t]*([^\x00-\x08\n-\x1f\x7f]*)\r\n", re.MULTILINE)
CONTROLS = bytes([*range(32), 127])
# RFC 9112 2.2: a recipient may refuse a bare CR or LF. A CR at the end may be half of a CRLF.
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
# RFC 9112 3.2.2: absolute-form = scheme "://" authority path-abempty [ "?" query ]
ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
# RFC 9110 7.2, RFC 3986 3.2.2: Host = uri-host [ ":" port ], without "," (which joins two Hosts) and without userinfo
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+;=]*)(?::[0-9]{0,5})?")
# RFC 9110 8.6: Content-Length = 1*DIGIT; more digits than these are no length of anything
LENGTH = re.compile(r"[0-9]{1,18}")
# RFC 9112 7.1: chunk-size [ chunk-ext ] CRLF
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\n-\x1f\x7f]*)?\r\n")


class Head(NamedTuple):
    """The head of one request.

    `fields` has the header fields by the names that they have in a WSGI environ (HTTP_ACCEPT, CONTENT_TYPE ...), as
    latin-1 text, repeated ones joined. `path` and `query` are raw. `length` is None if the body comes in chunks.
    `size` is how many of the bytes were the head.
    """

    method: str
    target: str
    path: str
    query: str
    minor: int
    length: int | None
    keep_alive: bool
    expects_continue: bool
    fields: dict[str, str]
    size: int


_head = partial(tuple.__new__, Head)  # what Head() calls; half a microsecond less


def head(buffer: bytes, limit: int = HEAD_LIMIT) -> Head | None:
    """The head that `buffer` begins with; None if it is not complete. It may have `limit` bytes.

    Raises:
        ProtocolError: 400, 414, 417, 431, 501 or 505; the connection is of no further use.
    """
    # RFC 9112 2.2: ignore one empty line before the request line
    start = 2 if buffer[:2] == b"\r\n" else 0
    end = buffer.find(b"\r\n\r\n", start, start + limit)
    if end < 0:
        _check_beginning(buffer, start, limit)
        return None
    first, _, block = buffer[start : end + 2].partition(b"\r\n")
    method, target, minor, path, query = (_seen if len(first) <= SEEN_LONGEST else _request_line)(first)
    fields = _fields(block)
    if not path:
        path, query = _target(method, target, fields)
    host = fields.get("HTTP_HOST")
    if host is None:
        if minor > 0:
            raise ProtocolError(400, "no Host")
    elif not _is_host(host):
        raise ProtocolError(400, "a malformed or repeated Host")
    length = _length(fields, minor) if "CONTENT_LENGTH" in fields or "HTTP_TRANSFER_ENCODING" in fields else 0
    continues = False
    if "HTTP_EXPECT" in fields:
        if fields["HTTP_EXPECT"].lower() != "100-continue":
            raise ProtocolError(417, "an expectation other than 100-continue")
        continues = minor > 0 and length != 0
    stays = _keep_alive(fields, minor) if "HTTP_CONNECTION" in fields else minor > 0
    return _head((method, target, path, query, minor, length, stays, continues, fields, end + 4))


def _check_beginning(buffer: bytes, start: int, limit: int) -> None:
    """Refuse early what cannot become a request any more, so that nobody waits for the rest of it."""
    line_end = buffer.find(b"\r\n", start)
    if line_end >= 0:
        _request_line(buffer[start:line_end])
    if BARE.search(buffer, start):
        raise ProtocolError(400, "a bare CR or LF")
    if len(buffer) - start >= limit:
        if line_end < 0:
            raise ProtocolError(414, f"a request line over {limit} bytes (--max-head)")
        raise ProtocolError(431, f"a head over {limit} bytes (--max-head)")


def _request_line(first: bytes) -> tuple[str, str, int, str, str]:
    """Method, target, minor version, and of a usual target the raw path and query; of others they are empty."""
    line = first.decode("latin-1")
    found = REQUEST_LINE.fullmatch(line)
    if found is None:
        if line.startswith("PROXY "):
            raise ProtocolError(400, "the PROXY protocol, which is not spoken here")
        raise ProtocolError(400, "a malformed request line")
    method, target, version = found.groups()
    if version[0] != "1":
        raise ProtocolError(505, f"HTTP/{version}")
    path = query = ""
    if target[0] == "/" and "#" not in target and method != "CONNECT":
        path, _, query = target.partition("?")
    return method, target, int(version[2]), path, query


# Most requests are for what has been asked for of late: 0.1 instead of 1.6 us.
SEEN_LONGEST = 256  # bytes of a request line
_seen = lru_cache(1024)(_request_line)


_keys: dict[str, str] = {}


def _key(name: str) -> str:
    """The environ's name of a header field; "" if it is dropped.

    Names with an underscore are: `X_Forwarded_For` would pass for `X-Forwarded-For`. So is Proxy: HTTP_PROXY in an
    environ that reaches a process's environment chooses its proxy (CVE-2016-5385).
    """
    key = name.upper().replace("-", "_")
    if "_" in name or key == "PROXY":
        key = ""
    elif key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        key = f"HTTP_{key}"
    if len(_keys) < 1024:  # the names come from clients: no more than can be honest
        _keys[name] = key
    return key


def _fields(block: bytes) -> dict[str, str]:
    """The header fields of whole lines.

    Most heads have lines like `Name: value` only, with known names, each of them once. Those are not matched, but
    parted, which takes two thirds of the time; any other block is `_odd_fields`.
    """
    text = block.decode("latin-1")
    lines = text.split("\r\n")
    lines.pop()  # what follows the last line's end: nothing
    count = len(lines)
    if len(block.translate(None, CONTROLS)) != len(block) - 2 * count or " \r" in text or ":  " in text:
        return _odd_fields(block)
    fields: dict[str, str] = {}
    try:
        for line in lines:
            name, value = line.split(": ", 1)
            fields[_keys[name]] = value
    except (KeyError, ValueError):
        return _odd_fields(block)
    return fields if len(fields) == count and "" not in fields else _odd_fields(block)


def _odd_fields(block: bytes) -> dict[str, str]:
    text = block.decode("latin-1")
    found = FIELD_LINE.findall(text)
    # Each match is one whole line, since neither part can hold a line's end. So equal counts mean that all matched.
    if len(found) != text.count("\n"):
        raise ProtocolError(400, "a malformed header field")
    fields: dict[str, str] = {}
    for name, value in found:
        key = _keys.get(name)
        if key is None:
            key = _key(name)
        if key in fields:  # RFC 9110 5.3 joins by comma, RFC 6265 5.4 cookies by semicolon
            fields[key] += ("; " if key == "HTTP_COOKIE" else ",") + value.rstrip(" \t")
        elif key:
            fields[key] = value.rstrip(" \t")
    return fields


def _target(method: str, target: str, fields: dict[str, str]) -> tuple[str, str]:
    """The raw path and query of an unusual target (RFC 9112 3.2). The authority of an absolute one overrides Host."""
    if method == "CONNECT":
        raise ProtocolError(501, "CONNECT")
    if target == "*":
        if method != "OPTIONS":
            raise ProtocolError(400, "the target * of a method other than OPTIONS")
        return "", ""
    if "#" in target:
        raise ProtocolError(400, "a fragment in the request target")
    rest = target
    if not target.startswith("/"):
        found = ABSOLUTE.fullmatch(target)
        if found is None or not found[1]:
            raise ProtocolError(400, "a malformed request target")
        if "," not in fields.get("HTTP_HOST", ","):  # a repeated one stays, and is refused
            fields["HTTP_HOST"] = found[1]
        rest = found[2]
    path, _, query = rest.partition("?")
    return path or "/", query


@lru_cache(256)
def _is_host(host: str) -> bool:
    """RFC 9112 3.2: refuse a request with an invalid Host. Of more than one, joined, there is a comma in it."""
    return HOST.fullmatch(host) is not None


def _length(fields: dict[str, str], minor: int) -> int | None:
    """The length of the body (RFC 9112 6.3); None if it comes in chunks."""
    length = fields.get("CONTENT_LENGTH")
    coding = fields.get("HTTP_TRANSFER_ENCODING")
    if coding is None:
        if length is None:
            return 0
        if not LENGTH.fullmatch(length):
            raise ProtocolError(400, "a malformed or repeated Content-Length")
        return int(length)
    # RFC 9112 6.1: both, or a transfer coding in HTTP/1.0, smell of request smuggling
    if length is not None:
        raise ProtocolError(400, "both Content-Length and Transfer-Encoding")
    if minor == 0:
        raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
    codings = [each.strip(" \t").lower() for each in coding.split(",")]
    if codings == ["chunked"]:
        return None
    if codings[-1] == "chunked" and "chunked" not in codings[:-1]:
        raise ProtocolError(501, "a transfer coding other than chunked")
    raise ProtocolError(400, "a Transfer-Encoding that does not end with one chunked")


def _keep_alive(fields: dict[str, str], minor: int) -> bool:
    """RFC 9112 9.3: whether the connection persists after the answer."""
    connection = fields.get("HTTP_CONNECTION")
    if connection is None:
        return minor > 0
    options = [each.strip(" \t").lower() for each in connection.split(",")]
    return "close" not in options and (minor > 0 or "keep-alive" in options)


class _Expected(Enum):
    """What comes next in a chunked body."""

    SIZE = "a chunk's size"
    DATA = "a chunk's data"
    DATA_END = "the line end after a chunk"
    TRAILERS = "trailer fields"
    NOTHING = "nothing: the body is complete"


class Chunked:
    """Decodes a chunked body (RFC 9112 7.1). Trailer fields are checked and dropped; extensions are ignored.

    What has arrived is gone through once, however small the chunks are: a client chooses their size.
    """

    def __init__(self) -> None:
        self._buffer = b""  # what has arrived; once done, what follows the body
        self._at = 0  # how much of it is decoded
        self._expected = _Expected.SIZE
        self._left = 0

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._expected is _Expected.NOTHING

    def receive(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def leftover(self) -> bytes:
        """What has arrived and is not decoded; once done, what is beyond the body."""
        return self._buffer[self._at :]

    def piece(self) -> bytes | None:
        """The next bytes of the body, of all chunks that have arrived; b"" at its end; None if more has to arrive.

        Raises:
            ProtocolError: 400, it is not chunked as it should be.
        """
        parts: list[bytes] = []
        while not self.done:
            if self._expected is _Expected.DATA:
                data = self._buffer[self._at : self._at + self._left]
                if not data:
                    break
                parts.append(data)
                self._at += len(data)
                self._left -= len(data)
                if not self._left:
                    self._expected = _Expected.DATA_END
                continue
            if self._expected is _Expected.SIZE:
                self._take_whole(parts)
            try:
                if not self._step():
                    break
            except ProtocolError:
                if not parts:
                    raise
                break  # what came before it comes first; the next call stands here again
        return b"".join(parts) if parts or self.done else None

    def _take_whole(self, parts: list[bytes]) -> None:
        """Take the chunks that have arrived whole; the last one, and what is wrong, is left to the steps."""
        buffer = self._buffer
        while found := CHUNK_LINE.match(buffer, self._at, self._at + CHUNK_LINE_LIMIT):
            start = found.end()
            end = start + int(found[1], 16)
            if start == end or buffer[end : end + 2] != b"\r\n":
                return
            parts.append(buffer[start:end])
            self._at = end + 2

    def _step(self) -> bool:
        """Go past what stands between data; whether there was enough to do so."""
        if self._expected is _Expected.SIZE:
            return self._size()
        if self._expected is _Expected.DATA_END:
            end = self._buffer[self._at : self._at + 2]
            if not b"\r\n".startswith(end):
                raise ProtocolError(400, "a chunk longer than its size")
            if len(end) < 2:
                return False
            self._at += 2
            self._expected = _Expected.SIZE
            return True
        return self._trailers()

    def _size(self) -> bool:
        end = self._buffer.find(b"\n", self._at, self._at + CHUNK_LINE_LIMIT) + 1
        if not end:
            if len(self._buffer) - self._at >= CHUNK_LINE_LIMIT:
                raise ProtocolError(400, "a chunk's size line is too long")
            return False
        found = CHUNK_LINE.fullmatch(self._buffer, self._at, end)
        if found is None:
            raise ProtocolError(400, "a malformed chunk size")
        self._left = int(found[1], 16)
        self._at = end
        self._expected = _Expected.DATA if self._left else _Expected.TRAILERS
        return True

    def _trailers(self) -> bool:
        """RFC 9112 7.1.2: *( field-line CRLF ) CRLF."""
        start = self._at
        if self._buffer.startswith(b"\r\n", start):
            self._at += 2
            self._expected = _Expected.NOTHING
            return True
        end = self._buffer.find(b"\r\n\r\n", start, start + TRAILER_LIMIT)
        if end < 0:
            if len(self._buffer) - start >= TRAILER_LIMIT or BARE.search(self._buffer, start):
                raise ProtocolError(400, "malformed trailer fields")
            return False
        _fields(bytes(self._buffer[start : end + 2]))
        self._at = end + 4
        self._expected = _Expected.NOTHING
        return True
