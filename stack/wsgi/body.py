"""wsgi.input: a request's body, read from the connection when the app asks, and never past its end.

Nothing is held but what one receive brought, so an upload of any size takes no memory of its own. A body that stops
short raises BodyCut in the app. `read(n)` returns n bytes unless the body ends before.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from .http import Chunked
from .protocol import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 65536  # bytes asked of the connection at a time


class BodyCut(OSError):  # noqa: N818 - what happened, as in BrokenPipe
    """The client went away, stalled, or broke the protocol before the end of the body that it had announced."""


class BodyTooLarge(BodyCut):
    """The body has more bytes than this server takes (RFC 9110 15.5.14)."""


class Body:
    """A body as a file object (PEP 3333, "Input and Error Streams"). This one is empty."""

    def __init__(self, data: bytes = b"") -> None:
        self._buffer = data
        self._position = 0

    @property
    def unread(self) -> int | None:
        """How many bytes the app has left unread on the connection; None if it cannot be known."""
        return 0

    @property
    def exceeded(self) -> bool:
        """Whether it has turned out to be larger than it may be."""
        return False

    def leftover(self) -> bytes:
        """What was received beyond the end of the body: the beginning of the next request."""
        return b""

    def _more(self) -> bytes:
        """Further bytes from the connection; b"" at the end."""
        return b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end; all that is left without a size."""
        start = self._position
        if size is not None and 0 <= size <= len(self._buffer) - start:
            self._position = start + size
            return self._buffer[start : start + size]
        parts = [self._take()]
        wanted = -1 if size is None or size < 0 else size - len(parts[0])
        while wanted:
            data = self._more()
            if not data:
                break
            if 0 <= wanted < len(data):
                self._buffer, self._position = data, wanted
                data = data[:wanted]
            parts.append(data)
            wanted -= len(data) if wanted > 0 else 0
        return b"".join(parts)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read to the end of the line, or `size` bytes of it."""
        limit = -1 if size is None or size < 0 else size
        parts: list[bytes] = []
        while limit:
            if self._position >= len(self._buffer):
                self._buffer, self._position = self._more(), 0
                if not self._buffer:
                    break
            start = self._position
            stop = len(self._buffer) if limit < 0 else min(len(self._buffer), start + limit)
            end = self._buffer.find(b"\n", start, stop) + 1
            self._position = end or stop
            parts.append(self._buffer[start : self._position])
            if end:
                break
            limit -= len(parts[-1]) if limit > 0 else 0
        return b"".join(parts)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Read lines until the end, or until they have `hint` bytes together."""
        lines: list[bytes] = []
        size = 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def discard(self, most: int) -> bool:
        """Read what the app left, if it is no more than about `most` bytes; whether the end was reached.

        Raises:
            BlockingIOError: what has not arrived is not waited for; to be called again.
        """
        self._take()
        try:
            while most > 0:
                data = self._more()
                if not data:
                    return True
                most -= len(data)
        except BodyCut:
            return False
        return self.unread == 0

    def _take(self) -> bytes:
        """All of the buffer."""
        data = self._buffer[self._position :]
        self._buffer, self._position = b"", 0
        return data


NOTHING = Body()
"""The body of every request that has none: reading changes nothing of it."""


class LengthBody(Body):
    """A body of known length, of which `data` arrived with the head."""

    def __init__(self, length: int, data: bytes, receive: Callable[[int], bytes]) -> None:
        super().__init__(data[:length])
        self._rest = data[length:]
        self._length = length
        self._left = length - len(self._buffer)
        self._receive = receive

    @property
    def unread(self) -> int | None:
        """How many bytes are still on the connection."""
        return self._left

    def leftover(self) -> bytes:
        """What arrived with the head and is beyond the body."""
        return self._rest

    def _more(self) -> bytes:
        if not self._left:
            return b""
        data = self._receive(min(PIECE, self._left))
        if not data:
            raise BodyCut(f"the request's body ended {self._left} bytes short of the {self._length} announced")
        self._left -= len(data)
        return data


class Pieces(Protocol):
    """What takes a body of unknown length out of what arrives: chunks, or the records of FastCGI."""

    @property
    def done(self) -> bool:
        """Whether the body is complete."""

    def receive(self, data: bytes) -> None:
        """Add what has arrived."""

    def piece(self) -> bytes | None:
        """The next bytes of the body; b"" at its end; None if more has to arrive. It may raise ProtocolError."""

    def leftover(self) -> bytes:
        """What has arrived beyond the body."""


class PiecedBody(Body):
    """A body that comes in pieces. With a `limit`, more bytes raise BodyTooLarge."""

    def __init__(self, pieces: Pieces, receive: Callable[[int], bytes], limit: int = 0) -> None:
        super().__init__()
        self._limit = limit
        self._room = limit or sys.maxsize  # bytes that may still come
        self._pieces = pieces
        self._receive = receive

    @property
    def unread(self) -> int | None:
        """None until the last piece has been read."""
        return 0 if self._pieces.done else None

    @property
    def exceeded(self) -> bool:
        """Whether it has turned out to be larger than it may be."""
        return self._room < 0

    def leftover(self) -> bytes:
        """What was received beyond the last piece."""
        return self._pieces.leftover() if self._pieces.done else b""

    def _more(self) -> bytes:
        try:
            while True:
                data = self._pieces.piece() if not self.exceeded else b""  # once too large, it stays so
                if data is not None:
                    self._room -= len(data)
                    if self.exceeded:
                        raise BodyTooLarge(f"the request's body exceeds {self._limit} bytes (--max-body)")
                    return data
                received = self._receive(PIECE)
                if not received:
                    raise BodyCut("the request's body was cut off before its end")
                self._pieces.receive(received)
        except ProtocolError as error:
            raise BodyCut(f"the request's body is broken: {error.reason}") from error


class ChunkedBody(PiecedBody):
    """A body in chunks, of which `data` arrived with the head."""

    def __init__(self, data: bytes, receive: Callable[[int], bytes], limit: int = 0) -> None:
        chunked = Chunked()
        chunked.receive(data)
        super().__init__(chunked, receive, limit)
