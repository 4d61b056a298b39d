"""Input that means harm, made from a seed: for the parsers in process, and for a server on real sockets.

A third is grammar (the protocol's own words in the wrong places, sizes that lie), half are cases of tests/cases with
bytes changed, and the rest is noise. Input number 7 of a protocol is the same wherever and whenever it is made from the
same seed, so that a failure can be replayed alone.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import psutil

from stack.wsgi import fastcgi, http, scgi, uwsgi
from stack.wsgi.protocol import ProtocolError, spoken

from . import test_fastcgi, test_http, test_scgi, wire
from .conftest import Server, everything, packet, request, wait_until

INTERESTING = (0, 1, 2, 7, 8, 9, 10, 13, 32, 44, 48, 57, 58, 127, 128, 255)
STATUSES = {400, 413, 414, 417, 431, 501, 505}
GOOD_AFTER = 100  # hostile connections, between two times that good requests are made

Parsed = tuple[object, int] | None


@dataclass(frozen=True, slots=True)
class Target:
    """A protocol's parser.

    `parse` is what a request's head is and how many bytes it has, None if it is not complete. `outcome` is all that
    comes of bytes that arrive in these pieces, `words` are what its language is made of.
    """

    name: str
    parse: Callable[[bytes], Parsed]
    outcome: Callable[[list[bytes]], object]
    seeds: Sequence[bytes]
    grammar: Callable[[Random], bytes]


def made(target: Target, seed: str, number: int) -> tuple[bytes, Random]:
    """Input `number`, and the random numbers to go on with."""
    random = Random(f"{seed} {target.name} {number}")
    kind = random.random()
    if kind < 0.5:
        return _mutated(random, target.seeds), random
    if kind < 0.85:
        return target.grammar(random), random
    noise = random.randbytes(random.randrange(80))
    return (random.choice(target.seeds)[: random.randrange(9)] + noise if random.random() < 0.5 else noise), random


def check(target: Target, seed: str, number: int) -> None:
    """What must hold of one input."""
    data, random = made(target, seed, number)
    whole = target.outcome([data])  # anything but a ProtocolError that is raised goes through
    assert len(repr(whole)) <= 8 * len(data) + 4000, "what comes of it is no larger than it is"
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(4)))
    pieces = [data[one:other] for one, other in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert target.outcome(pieces) == whole, "it does not matter how it arrives"
    try:
        found = target.parse(data)
    except ProtocolError as error:
        if error.status not in STATUSES:
            raise
        return
    if found is None:
        return
    size = found[1]
    assert 0 < size <= len(data)
    assert target.parse(data[: size - 1]) is None, "it needs all of its bytes"
    assert target.parse(data[:size]) == found, "and no more"
    assert target.parse(data[:size] + random.randbytes(9)) == found, "whatever follows"


def _mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with bytes changed, moved, doubled and lost, or its beginning with another one's end."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(data) + 1)
        upto = min(len(data), at + random.choice((1, 2, 4, 16)))
        match random.randrange(7):
            case 0:
                data[at:upto] = random.randbytes(upto - at)
            case 1:
                data[at:at] = bytes([random.choice(INTERESTING)])
            case 2:
                del data[at:upto]
            case 3:
                data[at:at] = data[at:upto] * random.choice((1, 1, 9))
            case 4:
                data[at:] = random.choice(seeds)[at:]
            case 5:
                data[at:upto] = bytes([random.choice(INTERESTING)]) * (upto - at)
            case _:
                del data[at:]
    return bytes(data)


# HTTP.


def _http_parse(data: bytes) -> Parsed:
    found = http.head(data)
    return None if found is None else (found, found.size)


LINES = (
    b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"OPTIONS * HTTP/1.1\r\n",
    b"GET http://a/ HTTP/1.1\r\n", b"PUT /%00 HTTP/1.2\r\n",
)  # fmt: skip
FIELDS = (
    b"Host: a\r\n", b"Host: a\r\n", b"Host:\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: 99999\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Cookie: a\r\n",
    b"X_Y: 1\r\n", b" folded\r\n", b"X : 1\r\n", b"X: 1\n", b"X: 1\r", b": 1\r\n", b"\r\n", b"\0",
)  # fmt: skip
CHUNKS = (
    b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"5;a=b\r\nhello\r\n", b"f\r\n", b"\r\n", b"X: 1\r\n", b"-1\r\n", b"5\n",
    b"hello", b"ffffffffffffff\r\n", b"00000000000000000\r\n", b"1\r\na\r\n" * 9,
)  # fmt: skip


def _http_grammar(random: Random) -> bytes:
    fields = random.choices(FIELDS[:11] if random.random() < 0.7 else FIELDS, k=random.randrange(6))
    if random.random() < 0.6:
        fields[:0] = [b"Host: a\r\n"]
    if random.random() < 0.4:
        fields.append(b"Transfer-Encoding: chunked\r\n")
    body = random.choices(CHUNKS, k=random.randrange(8)) if random.random() < 0.8 else [random.randbytes(9)]
    return b"".join([random.choice(LINES), *fields, b"\r\n", *body])


# Those with variables.

NAMES = (
    "REQUEST_METHOD", "REQUEST_URI", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH", "SCRIPT_NAME", "HTTP_HOST",
    "HTTP_A", "HTTP_A", "HTTP_PROXY", "UWSGI_FILE", "wsgi.input", "SCGI", "", "X" * 200,
)  # fmt: skip
VALUES = ("GET", "POST", "/", "/a%00?b", "", "5", "0", "-5", "99999999999999999999", "1", "x" * 300, "\0", "ä")


def _variables(random: Random) -> list[tuple[bytes, bytes]]:
    """Some that make a request, mostly, and some that do not."""
    pairs = [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/")] if random.random() < 0.7 else []
    pairs += [(random.choice(NAMES), random.choice(VALUES)) for _ in range(random.randrange(6))]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def _lying(random: Random, size: int, most: int = 65535) -> int:
    """A size, which is mostly right."""
    return (
        size if random.random() < 0.9 else random.choice((0, max(0, size - 1), size + 1, random.randrange(most), most))
    )


def _uwsgi_grammar(random: Random) -> bytes:
    parts = [part for pair in _variables(random) for part in pair]
    data = b"".join(struct.pack("<H", _lying(random, len(each))) + each for each in parts)
    return struct.pack("<BHB", 0, _lying(random, len(data)), random.randrange(2)) + data + random.randbytes(5)


def _scgi_grammar(random: Random) -> bytes:
    pairs = [(b"CONTENT_LENGTH", random.choice((b"0", b"5", b"5", b"-1", b""))), (b"SCGI", b"1"), *_variables(random)]
    if random.random() < 0.1:
        random.shuffle(pairs)
    data = b"\0".join(part for pair in pairs for part in pair) + b"\0" * (random.random() < 0.95)
    return b"%d:%b%b" % (_lying(random, len(data)), data, random.choice((b",", b",", b",", b"", b"x"))) + b"hello"


def _fastcgi_grammar(random: Random) -> bytes:
    params = b"".join(
        wire.size(_lying(random, len(name)), long=random.random() < 0.1)
        + wire.size(_lying(random, len(value)))
        + name
        + value
        for name, value in _variables(random)
    )
    script = [
        wire.begin(1, keep=random.random() < 0.5, role=_lying(random, 1)),
        *_stream(random, "PARAMS", params),
        *_stream(random, "STDIN", random.randbytes(random.choice((0, 5, 500)))),
    ]
    for _ in range(random.choice((0, 0, 1, 3))):
        kind, content = random.randrange(13), random.randbytes(random.choice((0, 0, 8, 9)))
        odd = wire.record(kind, random.choice((0, 1, 1, 2)), content, version=random.choice((1, 1, 1, 1, 0)))
        script.insert(random.randrange(len(script) + 1), odd)
    if random.random() < 0.2:
        script *= 2
    if random.random() < 0.1:
        random.shuffle(script)
    return b"".join(script)


def _stream(random: Random, kind: str, data: bytes) -> list[bytes]:
    most, padding = random.choice((3, 50, 65535)), random.choice((0, 0, 8, 255))
    parts = [data[at : at + most] for at in range(0, len(data), most)]
    return [wire.record(kind, 1, each, padding=padding) for each in [*parts, b""]]


def _fastcgi_parse(data: bytes) -> Parsed:
    records = fastcgi.Records()
    records.receive(data)
    found = records.request()
    return None if found is None else ((found, records.replies), len(data) - len(records.leftover()))


def _simple(parse: Callable[[bytes], tuple[dict[str, str], int] | None]) -> Callable[[list[bytes]], object]:
    """The outcome where a request's head is one packet."""

    def outcome(pieces: list[bytes]) -> object:
        buffer = b""
        try:
            for piece in pieces:
                buffer += piece
                found = parse(buffer)
                if found is not None:
                    return found
        except ProtocolError as error:
            return str(error)
        return None

    return outcome


POST = {
    "REQUEST_METHOD": "POST",
    "REQUEST_URI": "/a?b",
    "PATH_INFO": "/a",
    "CONTENT_LENGTH": "5",
    "HTTP_COOKIE": "x" * 90,
}
TARGETS = (
    Target("http", _http_parse, test_http.events, [test_http.case(each)[1] for each in test_http.CASES], _http_grammar),
    Target("uwsgi", uwsgi.variables, _simple(uwsgi.variables), [packet(POST) + b"hello", packet({})], _uwsgi_grammar),
    Target(
        "fastcgi",
        _fastcgi_parse,
        test_fastcgi.events,
        [data for each in test_fastcgi.CASES if len(data := test_fastcgi.case(each)[1]) < 2000],
        _fastcgi_grammar,
    ),
    Target(
        "scgi", scgi.variables, test_scgi.events, [test_scgi.case(each)[1] for each in test_scgi.CASES], _scgi_grammar
    ),
)


# On real sockets.


def harass(server: Server, seed: str, numbers: range) -> None:
    """Hostile connections, one after the other: each is answered or refused, and none leaves anything behind."""
    workers = server.workers()
    assert workers
    _good(server)
    before = _descriptors(workers)
    for number in numbers:
        target = TARGETS[number % len(TARGETS)]
        data, random = made(target, seed, number)
        _send(server, data, random)
        if number % GOOD_AFTER == 0:
            _good(server)
    _good(server)
    assert server.workers() == workers, "the same processes, in the same order"
    wait_until(lambda: _descriptors(workers) <= before, "no descriptor is left open")
    assert "error of the server itself" not in server.log


def _send(server: Server, data: bytes, random: Random) -> None:
    """Half of them wait for the end that the server makes; the others go away, some with the answer unread."""
    with server.connect() as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        cut = random.randrange(len(data) + 1)
        sock.sendall(data[:cut])
        sock.sendall(data[cut:])
        if random.random() < 0.5:
            sock.shutdown(socket.SHUT_WR)
            received = everything(sock)
            if data and spoken(data[0]) is None:
                assert not received, "what is not spoken has no answer"


def _good(server: Server) -> None:
    for protocol in ("http", "uwsgi", "fastcgi", "scgi"):
        assert b"read 5" in server.raw(request(protocol, "/", b"hello", "POST")), protocol


def _descriptors(workers: list[int]) -> int:
    return sum(psutil.Process(pid).num_fds() for pid in workers)
