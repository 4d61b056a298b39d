"""FastCGI 1.0: the records of one connection in, requests, bodies and what must be replied out. No I/O.

Source: the FastCGI Specification; numbers in parentheses are its sections. We are a Responder (6.2). A connection has
one request at a time: more at once are refused (4.1, 5.5), and nginx never tries. Requests may follow each other where
the web server keeps the connection (5.1). The stream FCGI_STDERR is not used: our log goes to our log.

An answer that breaks off has no FCGI_END_REQUEST, and ends with the record BROKEN. The application's status would not
do: nginx does not look at it. Nor would the end of the connection: without `fastcgi_keep_conn on`, or if it does not
buffer, nginx 1.22 takes that for the end of the answer, or leaves its client waiting for the rest.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .http import HEAD_LIMIT
from .protocol import ProtocolError
from .variables import length, passed

# 3.3: version, type, request id, bytes of content, bytes of padding, one reserved
HEADER = struct.Struct(">BBHHBx")
VERSION = 1
CONTENT_MOST = 65528  # that we send in a record: the largest multiple of 8, so that the next one is aligned (3.3)

# 8: types of records; those from GET_VALUES on are the connection's and have the id 0, the others are a request's
BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR, DATA = range(1, 9)
GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = range(9, 12)
# 5.1: role, flags, five reserved bytes
BEGIN = struct.Struct(">HB5x")
RESPONDER = 1
KEEP_CONN = 1
# 5.5: the application's status, the protocol's, three reserved bytes
END = struct.Struct(">IB3x")
REQUEST_COMPLETE, CANT_MPX_CONN, OVERLOADED, UNKNOWN_ROLE = range(4)

# 4.1. Not among them, because there is no such limit: how many connections and requests, which wait for a free thread.
VALUES = {"FCGI_MPXS_CONNS": "0"}


# 4.2: an application may send it at any time, and it says nothing of any request. nginx knows no such records and gives
# the answer up, in all its ways of passing one on.
BROKEN = HEADER.pack(VERSION, UNKNOWN_TYPE, 0, 8, 0) + bytes(8)


class Request(NamedTuple):
    """One request, but for its body. `length` is what CONTENT_LENGTH announces, None if only the body's end tells."""

    id: int
    keep: bool
    variables: dict[str, str]
    length: int | None


class Records:
    """What the web server sends on one connection.

    `request` is the next request; then `piece` gives its body; `end` ends it. `replies` are records to be sent.
    `active` is the id of the request that has begun, 0 without one. `done` tells whether its body is complete,
    `closing` that the connection ends with what was replied. The variables of a request may have `limit` bytes.
    """

    def __init__(self, limit: int = HEAD_LIMIT) -> None:
        self._limit = limit
        self.replies = b""
        self.active = 0
        self.done = False
        self.closing = False
        self._buffer = b""
        self._at = 0  # how much of it has been read
        self._skip = 0  # bytes before the next record that are of no interest, such as padding
        self._params = bytearray()
        self._in_body = False  # whether the variables of the request are complete
        self._content = 0  # bytes of the body in the record that has begun
        self._left: int | None = None  # bytes of the body to come, where CONTENT_LENGTH tells
        self._ended = False  # whether the body's last record has come
        self._keep = False
        self._aborted = False
        self._refused: ProtocolError | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has arrived."""
        return not self.active and self._at == len(self._buffer)

    @property
    def skips(self) -> bool:
        """Whether the rest of a record is to come that is of no interest."""
        return self._skip > 0

    def receive(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def leftover(self) -> bytes:
        """What has arrived and is not read, to be received again."""
        data = self._buffer[self._at :]
        self._buffer, self._at = b"", 0
        return data

    def request(self) -> Request | None:
        """The next request, once its variables are complete; None if more has to arrive.

        Raises:
            ProtocolError: 400 or 431; the connection is of no further use.
        """
        while not self._in_body:
            if self.closing or not self._record():
                return None
        found = passed(pairs(bytes(self._params)))
        self._params.clear()
        self._left = length(found)
        self.done = self._left == 0
        return Request(self.active, self._keep, found, self._left)

    def piece(self) -> bytes | None:
        """The next bytes of the body; b"" at its end; None if more has to arrive. What exceeds CONTENT_LENGTH is cut.

        Raises:
            ProtocolError: 400, the body is broken, or the web server has aborted the request. So it stays.
        """
        if self._refused is not None:
            raise self._refused
        try:
            while not self.done:
                if self._content:
                    return self._some()
                if not self._record():
                    return None
                self.done = self._ended
        except ProtocolError as error:
            self._refused = error
            raise
        return b""

    def arrived(self) -> bool:
        """Whether all of the body has arrived. What of it has not been read is dropped."""
        try:
            while not self._ended and (self._content or self._record()):
                if self._content and self._some() is None:
                    break
        except ProtocolError as error:
            self._refused = error
        return self._ended

    def end(self) -> bytes:
        """The last records of a whole answer: the end of its body, and FCGI_END_REQUEST (5.5).

        What still comes of the request is ignored, as the specification wants it of an id that is not active (3.3).
        """
        self.closing = not self._keep or (self._refused is not None and not self._aborted)
        return record(STDOUT, self.active, b"") + self._finish()

    def _finish(self) -> bytes:
        last = record(END_REQUEST, self.active, END.pack(int(self._aborted), REQUEST_COMPLETE))
        self._skip += self._content
        self._content = self.active = 0
        self._params.clear()
        self._in_body = self._ended = self._aborted = False
        self._refused = None
        return last

    def _some(self) -> bytes | None:
        """What has arrived of the record of the body that has begun."""
        data = self._buffer[self._at : self._at + self._content]
        if not data:
            return None
        self._at += len(data)
        self._content -= len(data)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.done = not self._left
        return data

    def _record(self) -> bool:
        """Go past the next record, or to the content of one of the body; whether it has arrived.

        A body is read as it comes, and so is skipped what is of no interest. All other records are wanted whole.
        """
        skipped = min(self._skip, len(self._buffer) - self._at)
        self._at += skipped
        self._skip -= skipped
        content = self._at + HEADER.size
        if self._at < len(self._buffer) and self._buffer[self._at] != VERSION:
            raise ProtocolError(400, f"version {self._buffer[self._at]} of FastCGI")
        if len(self._buffer) < content:
            return False
        _, kind, request_id, size, padding = HEADER.unpack_from(self._buffer, self._at)
        if kind == STDIN and request_id == self.active and self._in_body and not self._ended:
            self._content, self._skip = size, padding
            self._ended = not size
            if self._ended and self._left:
                raise ProtocolError(400, f"it ends {self._left} bytes short of its CONTENT_LENGTH")
            size = 0
        elif request_id not in {0, self.active} and kind != BEGIN_REQUEST:
            self._skip = size + padding  # 3.3: ignored, as the id is not active
            size = 0
        elif len(self._buffer) < content + size:
            return False
        else:
            self._skip = padding
            self._take(kind, request_id, self._buffer[content : content + size])
        self._at = content + size
        return True

    def _take(self, kind: int, request_id: int, content: bytes) -> None:
        """Act on a whole record."""
        if not 0 < kind < UNKNOWN_TYPE or (not request_id and kind == GET_VALUES_RESULT):
            self.replies += record(UNKNOWN_TYPE, 0, bytes([kind, *bytes(7)]))  # 4.2
        elif kind == GET_VALUES and not request_id:
            asked = dict(pairs(content))
            told = b"".join(pair(name, value) for name, value in VALUES.items() if name in asked)
            self.replies += record(GET_VALUES_RESULT, 0, told)
        elif kind == BEGIN_REQUEST and request_id:
            self._begin(request_id, content)
        elif kind == PARAMS and self.active and not self._in_body:
            self._params += content
            self._in_body = not content
            if len(self._params) > self._limit:
                raise ProtocolError(431, f"a head over {self._limit} bytes (--max-head)")
        elif kind == ABORT_REQUEST and self.active:
            self._abort()
        else:
            raise ProtocolError(400, f"a FastCGI record of type {kind} with the id {request_id} where none may be")

    def _begin(self, request_id: int, content: bytes) -> None:
        """5.1."""
        if len(content) != BEGIN.size or request_id == self.active:
            raise ProtocolError(400, "a malformed or repeated FCGI_BEGIN_REQUEST")
        role, flags = BEGIN.unpack(content)
        if self.active:
            self.replies += record(END_REQUEST, request_id, END.pack(0, CANT_MPX_CONN))
        elif role != RESPONDER:
            self.replies += record(END_REQUEST, request_id, END.pack(0, UNKNOWN_ROLE))
            self.closing = not flags & KEEP_CONN
        else:
            self.active = request_id
            self._keep = bool(flags & KEEP_CONN)

    def _abort(self) -> None:
        """5.4: end the request, which no app has seen; or have the app told, whose answer then ends it."""
        self._aborted = True
        if self._in_body:
            raise ProtocolError(400, "the web server has aborted the request")
        self.closing = not self._keep
        self.replies += self._finish()


def record(kind: int, request_id: int, content: bytes) -> bytes:
    """A record (3.3), without padding."""
    return header(kind, request_id, len(content)) + content


def header(kind: int, request_id: int, size: int) -> bytes:
    """The header of a record whose content has this size (3.3)."""
    return HEADER.pack(VERSION, kind, request_id, size, 0)


def pair(name: str, value: str) -> bytes:
    """A name and a value (3.4): their sizes, of one byte up to 127 and of four beyond, then they themselves."""
    both = name.encode("latin-1"), value.encode("latin-1")
    sizes = (
        len(each).to_bytes(1, "big") if len(each) < 128 else (len(each) | 1 << 31).to_bytes(4, "big") for each in both
    )
    return b"".join((*sizes, *both))


def pairs(data: bytes) -> list[tuple[str, str]]:
    """Names and values (3.4), as latin-1 text.

    Raises:
        ProtocolError: 400, a size points outside the data.
    """
    text = data.decode("latin-1")
    found: list[tuple[str, str]] = []
    at, end = 0, len(data)
    while at < end:
        name_size, at = _size(data, at)
        value_size, at = _size(data, at)
        value_at = at + name_size
        after = value_at + value_size
        if after > end:
            raise ProtocolError(400, "a FastCGI variable reaches beyond its stream")
        found.append((text[at:value_at], text[value_at:after]))
        at = after
    return found


def _size(data: bytes, at: int) -> tuple[int, int]:
    """A size (3.4), and where it ends; too much, if it is not there."""
    first = data[at] if at < len(data) else len(data)
    if first < 128 or at >= len(data):
        return first, at + 1
    return int.from_bytes(data[at : at + 4], "big") & 0x7FFFFFFF, at + 4
