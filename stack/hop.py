"""One request over one hop: ask an address in a protocol, read the answer. The client's side of a probe.

`request` and `answer` are pure; `ask` does the talking with a plain socket, `ask_async` with asyncio. The connection is
used once: the request says `Connection: close`, the answer ends where the stream ends (or its Content-Length does).

Standard library only: the supervisor uses it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stack.desired import Probe

__all__ = [
    "Answer",
    "NoAnswerError",
    "Result",
    "answer",
    "ask",
    "ask_async",
    "check",
    "check_async",
    "judged",
    "request",
]

MOST = 1 << 20  # bytes of an answer that are read; the rest is not needed to know that it came
VERSION = b"HTTP/1."
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([2-5][0-9]{2})(?: [^\r\n]*)?\r?\n")  # RFC 9112, section 4; a final one
CGI_STATUS = re.compile(rb"Status: ?([2-5][0-9]{2})(?: [^\r\n]*)?\r?\n")  # RFC 3875, section 6.3.3; as the first line
RECORD = struct.Struct(">BBHHBx")  # of FastCGI: version, type, request id, sizes of content and padding
BEGIN_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT = 1, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in small letters; `seconds` from connect to the end of what was read."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class NoAnswerError(Exception):
    """Nothing, or nothing of the protocol, came back. `connected` tells whether anybody took the connection."""

    def __init__(self, message: str, *, connected: bool) -> None:
        super().__init__(message)
        self.connected = connected


def request(protocol: str, host: str, path: str) -> bytes:
    """A GET as bytes, in `http` (RFC 9112), `uwsgi`, `fastcgi` or `scgi`."""
    if protocol == "http":
        return (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: stackctl\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ).encode("latin-1")
    if protocol not in _PACKED:
        raise ValueError(f"no client for the protocol {protocol!r}")
    location, _, query = path.partition("?")
    name, _, port = host.rpartition(":") if re.search(r":[0-9]+$", host) else (host, "", "80")
    variables = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": path,
        "PATH_INFO": location,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_SCHEME": "http",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": "stackctl",
        "HTTP_ACCEPT": "*/*",
    }
    encoded = [
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in variables.items()
    ]
    return _PACKED[protocol](encoded)


def answer(received: bytes, seconds: float, protocol: str = "http") -> Answer | None:
    """The answer at the start of these bytes; None while its head is incomplete.

    Raises:
        NoAnswerError: this does not begin like an answer.
    """
    said = _said(received, protocol)
    head, end, body = said.partition(b"\r\n\r\n")
    if not end:
        if not _begins_well(received, protocol):
            raise _foreign(received, protocol)
        return None
    found = _status_line(protocol).match(head + b"\r\n")
    if not found:
        raise _foreign(received, protocol)
    lines = (head + b"\r\n")[found.end() :].decode("latin-1").splitlines()
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(found[1]), headers, body, seconds)


def ask(address: str, protocol: str, host: str, path: str, within: float) -> Answer:
    """Ask over a socket of its own; `within` seconds for everything.

    Raises:
        NoAnswerError: nobody listens, it took too long, or what came back is no answer.
    """
    began = time.monotonic()
    kind, where = _target(address)
    received = b""
    with socket.socket(kind, socket.SOCK_STREAM) as connection:
        connection.settimeout(within)
        connected = False
        try:
            connection.connect(where)
            connected = True
            connection.sendall(request(protocol, host, path))
            while not _complete(received, protocol):
                connection.settimeout(max(0.001, within - (time.monotonic() - began)))
                piece = connection.recv(65536)
                if not piece:
                    break
                received += piece
        except TimeoutError:
            raise NoAnswerError(f"no answer within {within:g} s", connected=connected) from None
        except OSError as error:
            raise NoAnswerError(_reason(error, connected=connected), connected=connected) from error
    return _whole(received, time.monotonic() - began, protocol)


async def ask_async(address: str, protocol: str, host: str, path: str, within: float) -> Answer:
    """The same as `ask`, without blocking."""
    began = time.monotonic()
    connected = False
    received = b""
    writer = None
    try:
        async with asyncio.timeout(within):
            kind, where = _target(address)
            if kind == socket.AF_UNIX:
                reader, writer = await asyncio.open_unix_connection(str(where))
            else:
                reader, writer = await asyncio.open_connection(*where)
            connected = True
            writer.write(request(protocol, host, path))
            while not _complete(received, protocol):
                piece = await reader.read(65536)
                if not piece:
                    break
                received += piece
    except TimeoutError:
        raise NoAnswerError(f"no answer within {within:g} s", connected=connected) from None
    except OSError as error:
        raise NoAnswerError(_reason(error, connected=connected), connected=connected) from error
    finally:
        if writer is not None:
            writer.close()
    return _whole(received, time.monotonic() - began, protocol)


def _uwsgi(variables: Variables) -> bytes:
    """Modifier1 0, size, modifier2 0; each name and value after its size."""
    pairs = b"".join(struct.pack("<H", len(each)) + each for pair in variables for each in pair)
    return struct.pack("<BHB", 0, len(pairs), 0) + pairs


def _fastcgi(variables: Variables) -> bytes:
    """FastCGI Specification, appendix B: a Responder's request 1, without a body, and the connection not to be kept."""
    sizes = (b"".join(struct.pack(">I", len(each) | 1 << 31) for each in pair) for pair in variables)
    params = b"".join(size + name + value for size, (name, value) in zip(sizes, variables, strict=True))
    streams = ((BEGIN_REQUEST, struct.pack(">HB5x", 1, 0)), (PARAMS, params), (PARAMS, b""), (STDIN, b""))
    return b"".join(RECORD.pack(1, kind, 1, len(content), 0) + content for kind, content in streams)


def _scgi(variables: Variables) -> bytes:
    """A netstring; the length of the body comes first."""
    head = [(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1"), *variables]
    pairs = b"".join(each + b"\0" for pair in head for each in pair)
    return b"%d:%b," % (len(pairs), pairs)


Variables = list[tuple[bytes, bytes]]
_PACKED: dict[str, Callable[[Variables], bytes]] = {"uwsgi": _uwsgi, "fastcgi": _fastcgi, "scgi": _scgi}


def _target(address: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    if address.startswith("unix:"):
        return socket.AF_UNIX, address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        return socket.AF_INET6, (host.strip("[]"), int(port))
    return socket.AF_INET, (host, int(port))


def _status_line(protocol: str) -> re.Pattern[bytes]:
    return CGI_STATUS if protocol in {"fastcgi", "scgi"} else STATUS_LINE


def _begins_well(received: bytes, protocol: str) -> bool:
    if protocol == "fastcgi" and received[:1] != b"\x01"[: len(received)]:
        return False
    said, first = _said(received, protocol), VERSION if _status_line(protocol) is STATUS_LINE else b"Status:"
    return first.startswith(said[: len(first)])


def _said(received: bytes, protocol: str) -> bytes:
    """What was said in these bytes: over FastCGI, the content of the stream STDOUT."""
    if protocol != "fastcgi":
        return received
    return b"".join(received[at : at + size] for kind, at, size in _records(received) if kind == STDOUT)


def _records(received: bytes) -> Iterator[tuple[int, int, int]]:
    """The records of FastCGI, the last perhaps incomplete: type, where their content is, and its size."""
    at = 0
    while at + RECORD.size <= len(received):
        version, kind, _, size, padding = RECORD.unpack_from(received, at)
        if version != 1:
            return
        yield kind, at + RECORD.size, size
        at += RECORD.size + size + padding


def _foreign(received: bytes, protocol: str) -> NoAnswerError:
    spoken = {"fastcgi": "FastCGI", "scgi": "SCGI"}.get(protocol, "HTTP")
    return NoAnswerError(f"it answered something that is not {spoken}: {received[:40]!r}", connected=True)


def _complete(received: bytes, protocol: str) -> bool:
    """Whether there is no need to read on."""
    if protocol == "fastcgi" and any(kind == END_REQUEST for kind, _, _ in _records(received)):
        return True
    head, end, body = _said(received, protocol).partition(b"\r\n\r\n")
    if not end:
        return len(received) >= MOST or not _begins_well(received, protocol)
    length = re.search(rb"\r\ncontent-length:[ \t]*([0-9]+)", head.lower())
    return len(body) >= (int(length[1]) if length else MOST)


def _whole(received: bytes, seconds: float, protocol: str) -> Answer:
    if not received:
        raise NoAnswerError("it closed the connection without an answer", connected=True)
    found = answer(received, seconds, protocol)
    if found is None:
        raise NoAnswerError("it closed the connection in the middle of its answer", connected=True)
    return found


def _reason(error: OSError, *, connected: bool) -> str:
    if connected:
        return f"the connection broke: {error.strerror or error}"
    return {
        FileNotFoundError: "the socket does not exist",
        ConnectionRefusedError: "nobody listens there",
        PermissionError: "permission denied on the socket or a directory above it",
    }.get(type(error), f"cannot connect: {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class Result:
    """What a probe saw. `problem` is empty if the hop works."""

    probe: Probe
    saw: str
    problem: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the hop works."""
        return not self.problem


def check(probe: Probe) -> Result:
    """Tries a hop."""
    began = time.monotonic()
    try:
        return judged(probe, ask(probe.address, probe.protocol, probe.host, probe.path, probe.within))
    except NoAnswerError as error:
        return Result(probe, "", str(error), time.monotonic() - began)


async def check_async(probe: Probe) -> Result:
    """The same as `check`, without blocking."""
    began = time.monotonic()
    try:
        return judged(probe, await ask_async(probe.address, probe.protocol, probe.host, probe.path, probe.within))
    except NoAnswerError as error:
        return Result(probe, "", str(error), time.monotonic() - began)


def judged(probe: Probe, came: Answer) -> Result:
    """Whether this answer is what the probe wants."""
    problem = ""
    if probe.status and came.status != probe.status:
        problem = f"answered {came.status} to GET {probe.path}, not {probe.status}"
    elif came.status >= 500:
        problem = f"answered {came.status} to GET {probe.path}"
    elif probe.header and not re.fullmatch(probe.pattern, came.headers.get(probe.header, "")):
        problem = f"GET {probe.path} was answered, but not by the web server: its {probe.header} is missing"
    return Result(probe, f"{came.status}, {len(came.body)} bytes", problem, came.seconds)
