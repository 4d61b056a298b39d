"""The answer to one request: start_response, write, the app's iterable, and how they become bytes (PEP 3333).

Framing (RFC 9112 6.3): the app's Content-Length; else the length of the only chunk; else chunks over HTTP/1.1; else
the end of the connection (HTTP/1.0, uwsgi, SCGI) or of the request (FastCGI). The head goes out with the first bytes of
the body, or at the end.

Refused when given to start_response, as an error in the app: a status that is not "999 Reason" or is 1xx, headers
that are not pairs of latin-1 str, control characters in them, and the hop-by-hop headers that would change the
framing. `Connection` and `Keep-Alive` are dropped instead: many apps that stream send them, and mean no harm.
"""

from __future__ import annotations

import io
import os
import re
import stat
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Any, Protocol

from .dates import http_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from .gathering import Pieces

    Headers = list[tuple[str, str]]
    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

JOIN_LIMIT = 65536  # bytes up to which copying parts together is cheaper than another system call
SOFTWARE = b"stackctl"

# What comes before the status: as in HTTP, which uwsgi has too, and as in CGI (RFC 3875 6.3.3), so FastCGI and SCGI.
AS_HTTP = b"HTTP/1.1 "
AS_CGI = b"Status: "

# PEP 3333, "The start_response() Callable": "999 Message here", no control characters
STATUS_FORM = re.compile(r"[2-9][0-9][0-9](?: [\t -~\x80-\xff]*)?")
# RFC 9110 5.6.2 and 5.5
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(r"[^\x00-\x08\n-\x1f\x7f\u0100-\U0010ffff]*")
_REFUSED = frozenset(
    {"proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers", "transfer-encoding", "upgrade"}
)


class Transport(Protocol):
    """What an answer needs of its connection. Each raises PeerGone if nobody takes the bytes."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def send_all(self, parts: Sequence[bytes]) -> None:
        """Send all of these, one after the other."""

    def pieces(self, frame: Callable[[bytes], bytes]) -> Pieces:
        """Where to add what is to be sent soon, in such a frame; no more than JOIN_LIMIT at a time."""

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send `count` bytes of a file from `offset` on; how many there were."""


class PeerGone(ConnectionError):  # noqa: N818 - what happened, as in BrokenPipe
    """The peer closed the connection, or took nothing for too long."""


class FileWrapper:
    """wsgi.file_wrapper: a file-like object's blocks (PEP 3333, "Optional Platform-Specific File Handling")."""

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.filelike.read(self.block_size), b"")

    def region(self) -> tuple[int, int, int] | None:
        """File descriptor, position and bytes from there on, of a real file; None of anything else.

        Only the plain binary files of `io` count: others may have a descriptor, but read something else than what is
        in that file (GzipFile).
        """
        if not isinstance(self.filelike, (io.BufferedReader, io.FileIO, io.BufferedRandom)):
            return None
        try:
            fd = self.filelike.fileno()
            status = os.fstat(fd)
            position = self.filelike.tell()
        except (OSError, ValueError):
            return None
        return (fd, position, max(0, status.st_size - position)) if stat.S_ISREG(status.st_mode) else None


class Response:
    """One answer. `minor` is that of HTTP/1.minor, or None over other protocols. `opening` comes before the status.

    `persists` is asked when the head is made, whether the connection may stay; `keep_alive` tells afterwards. `status`
    is a number, 500 as long as the app has told none; `started` whether bytes went out, `whole` whether the answer is
    complete, `sent` how many bytes of a body went out, `fault` what the app did wrong with it. `bodiless`: answers to
    HEAD, 204 and 304 have no body (RFC 9110 6.4.1). `open_ended`: it has begun, and nobody knows its length.
    """

    # Here, not set for each request: most answers leave most of them so.
    status = 500
    started = False
    whole = False
    sent = 0
    fault = ""
    keep_alive = False
    framed = False
    bodiless = False
    open_ended = False
    _status = ""
    _line = b""  # the same as it goes on the wire
    _empty = False  # whether an answer with it has no body
    _lines = b""  # the app's headers
    _told = 0  # which of those that this server would add they have
    _left: int | None = None  # bytes of the body still to come, if that is known
    _chunked = False

    def __init__(
        self,
        transport: Transport,
        method: str,
        minor: int | None,
        persists: Callable[[], bool],
        opening: bytes = AS_HTTP,
    ) -> None:
        self._transport = transport
        self._head_only = method == "HEAD"
        self._minor = minor
        self._persists = persists
        self._opening = opening

    @property
    def failing(self) -> bool:
        """Whether the app has chosen to say that it has failed."""
        return self._status.startswith("500")

    def start(self, status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Callable[[bytes], None]:
        """start_response. Keeps status and headers until there is a body, or replaces them in an error's handler."""
        if exc_info is not None:
            try:
                if self.started and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: no circular reference through the traceback
        elif self._status:
            raise AssertionError("start_response was called a second time without exc_info")
        if type(status) is not str:
            raise ValueError(f'not a status of the form "200 OK": {status!r}')
        self._line, self._empty, self.status, dropped = _status_line(status)
        if self._opening is AS_CGI:
            dropped |= STATUS  # there is one already, and the web server obeys it
        self._lines, self._told, self._left = _checked(headers, dropped)
        self._status = status
        self.bodiless = self._empty or self._head_only
        return self.write

    def write(self, data: bytes) -> None:
        """The callable that start_response returns: send these bytes of the body now."""
        self.chunk(data)

    def chunk(self, data: bytes, only: bool = False) -> None:  # noqa: FBT001, FBT002 - by place: half the time
        """Send a chunk of the body. `only` tells that no other will come, so its length is the body's."""
        if not isinstance(data, bytes):
            raise TypeError(f"the body must be an iterable of bytes; a piece of it is {type(data).__name__}")
        if not data:
            return
        size = len(data)
        if self.started:
            if not self.bodiless:
                self._more(data)
            return
        head = self._head(size if only else None)
        self.started = True
        if self.bodiless:
            self._transport.send(head)
        elif self._left == size <= JOIN_LIMIT:  # as most answers: all of it is there
            self._left = 0
            self.sent = size
            self._transport.send(head + data)
        else:
            self.open_ended = self._left is None
            self._emit((head, *self._framed(data)))

    def rest(self, chunks: Iterator[bytes]) -> None:
        """Send all further chunks of a body that is open-ended."""
        add, sent = self._pieces().add, 0
        try:
            for data in chunks:  # a third of the time that chunk() would take
                if type(data) is bytes and 0 < len(data) <= JOIN_LIMIT:
                    sent += len(data)
                    add(data)
                else:
                    self.chunk(data)
        finally:
            self.sent += sent

    def file(self, region: tuple[int, int, int]) -> None:
        """Send part of a real file as the body, in the kernel."""
        fd, position, size = region
        if self.started:  # through write(): its end is no end of this file
            raise AssertionError("a file after write()")
        head = self._head(size)
        self.started = True
        self._transport.send(head)
        if self.bodiless or self._left is None:
            return
        count = self._transport.send_file(fd, position, min(size, self._left))
        self.sent += count
        self._left -= count

    def finish(self) -> None:
        """The app has no more: send what is left to send."""
        if not self.started:
            head = self._head(0)
            self.started = True
            self._transport.send(head)
        elif self._chunked:
            self._transport.send(b"0\r\n\r\n")
        if self._left and not self.bodiless:
            self.fault = f"the app ended {self._left} bytes short of its Content-Length"
            return
        self.whole = True

    def fail(self, status: str, text: str) -> None:
        """Answer with an error, if nothing has gone out."""
        self._status = ""
        data = f"{text}\n".encode()
        self.start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(data)))])
        self.chunk(data)
        self.finish()

    def _head(self, length: int | None) -> bytes:
        """Status line and headers. `length` is the body's, where the app's Content-Length does not say it."""
        if not self._status:
            raise AssertionError("start_response was not called before the body")
        head = self._opening + self._line + self._lines
        if self._left is None and length is not None and not self._empty:
            # HEAD, and the app made no body: then nobody knows how long the body of GET is.
            if length or not self._head_only:
                head += b"Content-Length: %d\r\n" % length
            self._left = length
        head += _signature(int(time()), self._told & (DATE | SERVER))
        if self._minor is None:  # over these protocols the end of the connection, or of the request, says it all
            self.framed = self._left is not None or self.bodiless
            return head + b"\r\n"
        if self._left is not None or self.bodiless:
            self.framed = True
        elif self._minor:
            self.framed = self._chunked = True
            head += b"Transfer-Encoding: chunked\r\n"
        if self.framed and self._persists():
            self.keep_alive = True
            return head + (b"\r\n" if self._minor else b"Connection: keep-alive\r\n\r\n")
        return head + b"Connection: close\r\n\r\n"

    def _framed(self, data: bytes) -> tuple[bytes, ...]:
        """The parts that a chunk of the body becomes on the wire. What exceeds the Content-Length is cut."""
        if self._chunked:
            self.sent += len(data)
            return (b"%x\r\n" % len(data), data, b"\r\n")
        if self._left is not None:
            if len(data) > self._left:
                self.fault = "the app's body exceeds its Content-Length; the rest is cut"
                data = data[: self._left]
            self._left -= len(data)
        self.sent += len(data)
        return (data,)

    def _more(self, data: bytes) -> None:
        """Send a chunk that is not the first."""
        if len(data) > JOIN_LIMIT:
            self._emit(self._framed(data))
            return
        if self._left is not None:
            (data,) = self._framed(data)
        else:
            self.sent += len(data)
        self._pieces().add(data)

    def _pieces(self) -> Pieces:
        return self._transport.pieces(_chunk if self._chunked else bytes)

    def _emit(self, parts: tuple[bytes, ...]) -> None:
        if sum(map(len, parts)) <= JOIN_LIMIT:
            self._transport.send(b"".join(parts))
        else:
            self._transport.send_all(parts)


def _chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(result: Iterable[bytes], response: Response) -> None:
    """Send what the app returned. The caller closes it."""
    if type(result) is FileWrapper and not response.started:
        region = result.region()
        if region is not None:
            response.file(region)
            response.finish()
            return
    try:
        pieces = iter(result)
    except TypeError:
        if hasattr(result, "__iter__"):  # the app's own error
            raise
        raise TypeError(f"the app must return an iterable of bytes, not {type(result).__name__}") from None
    only = hasattr(result, "__len__") and len(result) == 1  # type: ignore[arg-type]
    for data in pieces:
        response.chunk(data, only)
        if response.open_ended:
            response.rest(pieces)
        elif response.bodiless and response.started:  # nobody wants the rest, and it may have no end
            break
    response.finish()


@lru_cache(256)
def _status_line(status: str) -> tuple[bytes, bool, int, int]:
    """A status as it goes on the wire, whether an answer with it has no body, its number, and which headers it lacks.

    RFC 9110 15.3.5 and 15.4.5: 204 and 304 have no body; 8.6: and 204 no Content-Length.
    """
    if not STATUS_FORM.fullmatch(status):
        raise ValueError(f'not a status of the form "200 OK": {status!r}')
    line = status if " " in status else f"{status} "
    dropped = CONNECTION | (CONTENT_LENGTH if status.startswith("204") else 0)
    return f"{line}\r\n".encode("latin-1"), status.startswith(("204", "304")), int(status[:3]), dropped


@lru_cache(4)
def _signature(now: int, told: int) -> bytes:
    """What this server adds to the headers, unless the app has told it: Date (RFC 9110 5.6.7) and Server."""
    date = b"" if told & DATE else b"Date: %s\r\n" % http_date(now).encode()
    return date if told & SERVER else b"%sServer: %s\r\n" % (date, SOFTWARE)


# What this server makes of a header, by its name; of most it makes nothing.
CONTENT_LENGTH, DATE, SERVER, STATUS, CONNECTION = 1, 2, 4, 8, 16
_MEANING = {
    "content-length": CONTENT_LENGTH,
    "date": DATE,
    "server": SERVER,
    "status": STATUS,
    "connection": CONNECTION,
    "keep-alive": CONNECTION,
}
# Pairs of name and value as apps give them, checked: their line, what this server makes of it, and the length if it is
# the Content-Length. Most answers have few that no answer before had; one that is known costs a fifth of one that is
# checked (0.15 instead of 0.8 us).
_known: dict[tuple[str, str], tuple[bytes, int, int]] = {}
KNOWN_MOST = 2048  # pairs; then it begins anew
KNOWN_LONGEST = 128  # characters of a value


def _checked(headers: Headers, dropped: int) -> tuple[bytes, int, int | None]:
    """The headers as they go on the wire, which of _MEANING are among them, and the Content-Length if there is one."""
    if type(headers) is not list:
        raise TypeError(f"the headers must be a list, not {type(headers).__name__}")
    lines = b""
    told = 0
    length: int | None = None
    for pair in headers:
        try:
            line, meaning, size = _known[pair]
        except (KeyError, TypeError):
            line, meaning, size = _check(pair)
        if meaning:  # of most names there is none
            if meaning & dropped:
                continue
            if meaning == CONTENT_LENGTH:
                if length is not None and size != length:
                    raise ValueError(f"a second Content-Length: {size}, after {length}")
                length = size
            told |= meaning
        lines += line
    return lines, told, length


def _check(pair: tuple[str, str]) -> tuple[bytes, int, int]:
    """A header as a line, what this server makes of it, and the length if it is the Content-Length.

    Raises:
        ValueError: it is none (RFC 9110 5.5: no control characters, above all no line ends), or not the app's business.
    """
    if type(pair) is not tuple or len(pair) != 2:
        raise ValueError(f"not a pair of name and value: {pair!r}")
    name, value = pair
    if type(name) is not str or not NAME.fullmatch(name):
        raise ValueError(f"not a header's name: {name!r}")
    if type(value) is not str or not VALUE.fullmatch(value):
        raise ValueError(f"not a header's value: {name}: {value!r}")
    lower = name.lower()
    if lower in _REFUSED:
        raise ValueError(f"a hop-by-hop header is the server's business (PEP 3333): {name}")
    meaning = _MEANING.get(lower, 0)
    found = f"{name}: {value}\r\n".encode("latin-1"), meaning, _length(value) if meaning == CONTENT_LENGTH else 0
    if len(value) <= KNOWN_LONGEST:
        if len(_known) >= KNOWN_MOST:
            _known.clear()
        _known[pair] = found
    return found


def _length(value: str) -> int:
    if not value.isdigit() or not value.isascii():
        raise ValueError(f"not a Content-Length: {value!r}")
    return int(value)
