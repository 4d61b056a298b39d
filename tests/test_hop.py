"""One request over one hop, against small servers on real sockets; and what the results say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack import health, hop
from stack.cli import show
from stack.desired import Plan, Probe
from stack.health.finding import of_result
from stack.hop import Answer, NoAnswerError
from stack.wsgi import fastcgi, scgi

from .wsgi import wire

WITHIN = 20.0  # seconds: a deadline for what should take milliseconds
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "1-2"\r\n\r\nhi'
ROOT = os.geteuid() == 0

Asker = Callable[[str, str, str, str, float], Answer]


def ask_async(address: str, protocol: str, host: str, path: str, within: float) -> Answer:
    return asyncio.run(hop.ask_async(address, protocol, host, path, within))


def check_async(probe: Probe) -> hop.Result:
    return asyncio.run(hop.check_async(probe))


both = pytest.mark.parametrize("ask", [hop.ask, ask_async], ids=["blocking", "async"])


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a path that a unix socket's fits behind."""
    directory = tempfile.mkdtemp(prefix="hop-", dir="/tmp")
    yield Path(directory)
    shutil.rmtree(directory)


@contextmanager
def server(address: Path | tuple[str, int], *pieces: bytes, hold: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """Answers one connection with these pieces, then closes it, or holds it until the client goes. Yields its
    address as a probe names it, and what it is told.
    """
    if isinstance(address, Path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(address))
        listener.listen()
        name = f"unix:{address}"
    else:
        listener = socket.create_server(address)
        name = "{}:{}".format(*listener.getsockname())
    told: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(WITHIN)
            told.append(connection.recv(65536))
            for piece in pieces:
                connection.sendall(piece)
            if hold:
                connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield name, told
    finally:
        thread.join(WITHIN)
        listener.close()
        assert not thread.is_alive()


def pairs(packet: bytes) -> dict[str, str]:
    """The variables of a uwsgi packet."""
    modifier, size, second = struct.unpack("<BHB", packet[:4])
    assert (modifier, size, second) == (0, len(packet) - 4, 0)
    found, rest = [], packet[4:]
    while rest:
        (length,) = struct.unpack("<H", rest[:2])
        found.append(rest[2 : 2 + length].decode("latin-1"))
        rest = rest[2 + length :]
    return dict(zip(found[::2], found[1::2], strict=True))


# What is asked.


def test_a_request_in_http_closes_and_has_its_host() -> None:
    lines = hop.request("http", "a.org:8000", "/x?y=1").decode().split("\r\n")
    assert lines[0] == "GET /x?y=1 HTTP/1.1"
    assert {"Host: a.org:8000", "Connection: close"} <= set(lines)
    assert lines[-2:] == ["", ""]


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [("a.org", "a.org", "80"), ("a.org:81", "a.org", "81"), ("[::1]:81", "[::1]", "81"), ("[::1]", "[::1]", "80")],
)
def test_a_request_in_uwsgi_has_what_wsgi_wants(host: str, name: str, port: str) -> None:
    variables = pairs(hop.request("uwsgi", host, "/x/y?z=1"))
    assert variables["REQUEST_METHOD"] == "GET"
    assert (variables["PATH_INFO"], variables["QUERY_STRING"]) == ("/x/y", "z=1")
    assert variables["REQUEST_URI"] == "/x/y?z=1"
    assert (variables["SERVER_NAME"], variables["SERVER_PORT"], variables["HTTP_HOST"]) == (name, port, host)


def test_a_protocol_without_a_client_is_a_bug() -> None:
    with pytest.raises(ValueError, match="ajp"):
        hop.request("ajp", "x", "/")


def test_a_request_in_fastcgi_and_scgi_says_the_same_as_one_in_uwsgi() -> None:
    said = pairs(hop.request("uwsgi", "a.org:81", "/x/y?z=1"))
    records = fastcgi.Records()
    records.receive(hop.request("fastcgi", "a.org:81", "/x/y?z=1"))
    found = records.request()
    assert found is not None
    assert (found.variables, found.keep, records.piece(), records.idle) == (said, False, b"", False)
    packet = scgi.variables(hop.request("scgi", "a.org:81", "/x/y?z=1"))
    assert packet is not None
    assert packet[0] == {"CONTENT_LENGTH": "0", "SCGI": "1", **said}


# What comes back.


def said_in(protocol: str, whole: bytes = b"") -> bytes:
    """The answer OK as it is said in this protocol."""
    said = whole or OK
    if protocol in {"fastcgi", "scgi"}:
        said = said.replace(b"HTTP/1.1", b"Status:")
    if protocol == "fastcgi":
        logged = wire.record("STDERR", 1, b"a warning", padding=7)
        halves = said[:5], said[5:]
        stdout = b"".join(wire.record("STDOUT", 1, each, padding=3) for each in (*halves, b""))
        return logged + stdout + wire.record("END_REQUEST", 1, bytes(8))
    return said


@pytest.mark.parametrize("protocol", ["http", "uwsgi", "fastcgi", "scgi"])
def test_an_answer_is_complete_no_sooner_than_it_is(protocol: str) -> None:
    said = said_in(protocol)
    for size in range(len(said)):
        came = hop.answer(said[:size], 0, protocol)
        assert hop._complete(said[:size], protocol) == (came is not None and came.body == b"hi")
    assert hop._complete(said, protocol)
    for other in {"http", "fastcgi", "scgi"} - {protocol.replace("uwsgi", "http")}:
        with pytest.raises(NoAnswerError, match="something that is not"):
            hop.answer(said, 0, other)


@both
def test_an_answer_over_fastcgi_without_a_length_ends_with_the_request(ask: Asker, short: Path) -> None:
    said = said_in("fastcgi", b"HTTP/1.1 200 OK\r\n\r\nhi")
    with server(short / "s", said[:30], said[30:], hold=True) as (address, _):
        assert ask(address, "fastcgi", "a.org", "/x", WITHIN).body == b"hi"


@both
@pytest.mark.parametrize("protocol", ["http", "uwsgi", "fastcgi", "scgi"])
def test_an_answer_over_a_unix_socket(ask: Asker, protocol: str, short: Path) -> None:
    said = said_in(protocol)
    with server(short / "s", said[:9], said[9:], hold=True) as (address, told):
        came = ask(address, protocol, "a.org", "/x", WITHIN)
    assert (came.status, came.headers["etag"], came.body) == (200, '"1-2"', b"hi")
    assert came.seconds >= 0
    assert told == [hop.request(protocol, "a.org", "/x")]


@both
def test_an_answer_over_tcp_ends_where_the_stream_ends(ask: Asker) -> None:
    with server(("127.0.0.1", 0), b"HTTP/1.0 404 Not Found\r\n\r\n", b"no", b"thing") as (address, _):
        came = ask(address, "http", "a.org", "/", WITHIN)
    assert (came.status, came.headers, came.body) == (404, {}, b"nothing")


@both
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ((), "it closed the connection without an answer"),
        ((b"HTT",), "it closed the connection in the middle of its answer"),
        ((b"HTTP/1.1 200 OK\r\nContent-",), "it closed the connection in the middle of its answer"),
        ((b"SSH-2.0-OpenSSH\r\n",), "it answered something that is not HTTP: b'SSH-2.0-OpenSSH"),
        ((b"\x15\x03\x01",), "it answered something that is not HTTP"),
        ((b"HTTP/1.1 999 Odd\r\n\r\n",), "it answered something that is not HTTP"),
        ((b"HTTP/2 200\r\n\r\n",), "it answered something that is not HTTP"),
        ((b"<html>\r\n\r\n",), "it answered something that is not HTTP"),
    ],
)
def test_what_is_no_answer_is_told_as_what_it_is(
    ask: Asker, said: tuple[bytes, ...], message: str, short: Path
) -> None:
    with server(short / "s", *said) as (address, _), pytest.raises(NoAnswerError) as caught:
        ask(address, "http", "x", "/", WITHIN)
    assert str(caught.value).startswith(message)
    assert caught.value.connected


@both
def test_garbage_is_told_at_once_though_the_connection_stays(ask: Asker, short: Path) -> None:
    """Within the deadline that only a hanging test would reach."""
    garbage = server(short / "s", b"220 mail ready\r\n", hold=True)
    with garbage as (address, _), pytest.raises(NoAnswerError, match="not HTTP: b'220 mail ready"):
        ask(address, "http", "x", "/", WITHIN)


@both
def test_a_server_that_says_nothing_is_waited_for_no_longer_than_told(ask: Asker, short: Path) -> None:
    with server(short / "s", hold=True) as (address, _), pytest.raises(NoAnswerError) as caught:
        ask(address, "http", "x", "/", 0.05)
    assert (str(caught.value), caught.value.connected) == ("no answer within 0.05 s", True)


@both
def test_a_missing_socket_is_said(ask: Asker, short: Path) -> None:
    with pytest.raises(NoAnswerError, match="the socket does not exist") as caught:
        ask(f"unix:{short}/none", "uwsgi", "x", "/", WITHIN)
    assert not caught.value.connected


@both
def test_a_socket_without_a_listener_is_said(ask: Asker, short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(short / "s"))
    with pytest.raises(NoAnswerError, match="nobody listens there") as caught:
        ask(f"unix:{short}/s", "uwsgi", "x", "/", WITHIN)
    assert not caught.value.connected


@both
def test_a_port_without_a_listener_is_said(ask: Asker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NoAnswerError, match="nobody listens there"):
        ask(f"127.0.0.1:{port}", "http", "x", "/", WITHIN)


@both
@pytest.mark.skipif(ROOT, reason="root may enter everywhere: run the tests as another user too")
def test_a_socket_that_may_not_be_reached_is_said(ask: Asker, short: Path) -> None:
    (short / "shut").mkdir(mode=0)
    try:
        with pytest.raises(NoAnswerError, match="permission denied"):
            ask(f"unix:{short}/shut/s", "http", "x", "/", WITHIN)
    finally:
        (short / "shut").chmod(0o700)


@both
def test_a_path_too_long_for_a_socket_is_no_crash(ask: Asker) -> None:
    with pytest.raises(NoAnswerError, match="cannot connect"):
        ask("unix:/" + "x" * 200, "http", "x", "/", WITHIN)


@given(st.binary(max_size=40))
def test_whatever_comes_is_an_answer_or_none_or_no_answer(received: bytes) -> None:
    for protocol in ("http", "fastcgi", "scgi"):
        with contextlib.suppress(NoAnswerError):
            came = hop.answer(received, 0, protocol)
            assert came is None or 200 <= came.status <= 599


@given(st.integers(0, len(OK)))
def test_the_beginning_of_an_answer_is_never_refused(size: int) -> None:
    came = hop.answer(OK[:size], 0)
    assert (came is not None) == (b"\r\n\r\n" in OK[:size])


# What it is worth.


def probe(address: str = "unix:/none", **fields: Any) -> Probe:
    plain = Probe("app", "app server of app", "http", address, "x", "/healthz", "Do this.", WITHIN)
    return Probe(**{**{name: getattr(plain, name) for name in Probe.__slots__}, **fields})


@pytest.mark.parametrize(
    ("fields", "status", "etag", "problem"),
    [
        ({}, 200, "", ""),
        ({}, 404, "", ""),
        ({}, 499, "", ""),
        ({}, 500, "", "answered 500 to GET /healthz"),
        ({"status": 200}, 200, "", ""),
        ({"status": 200}, 404, "", "answered 404 to GET /healthz, not 200"),
        ({"header": "etag", "pattern": "a+"}, 200, "aa", ""),
        ({"header": "etag", "pattern": "a+"}, 200, "ab", "not by the web server: its etag is missing"),
        ({"header": "server", "pattern": "a+"}, 200, "", "not by the web server: its server is missing"),
    ],
)
def test_an_answer_is_judged(fields: dict[str, Any], status: int, etag: str, problem: str) -> None:
    result = hop.judged(probe(**fields), Answer(status, {"etag": etag}, b"12", 0.25))
    assert result.problem.endswith(problem)
    assert result.passed == (not problem)
    assert (result.saw, result.seconds) == (f"{status}, 2 bytes", 0.25)


@pytest.mark.parametrize("check", [hop.check, check_async], ids=["blocking", "async"])
def test_a_check_never_raises(check: Callable[[Probe], hop.Result], short: Path) -> None:
    result = check(probe(f"unix:{short}/none"))
    assert (result.passed, result.saw, result.problem) == (False, "", "the socket does not exist")
    with server(short / "s", OK) as (address, _):
        assert check(probe(address)).saw == "200, 2 bytes"


# Health.


def test_every_probe_of_a_plan_has_a_result_in_their_order(short: Path) -> None:
    with server(short / "s", OK) as (address, _):
        probes = (probe(f"unix:{short}/none"), probe(address, hop="site"))
        plan = Plan("shop", "/", "/", "/", "", (), (), (), (), probes)
        results = list(health.results(plan))
    assert [(each.probe.hop, each.passed) for each in results] == [("app", False), ("site", True)]
    broken, well = map(of_result, results)
    assert [each.as_json()["ok"] for each in (broken, well)] == [False, True]
    assert (broken.hint, broken.problem) == ("Do this.", "the socket does not exist")
    assert (well.hint, well.tried) == ("", f"GET /healthz in http on {address}")
    assert "FAIL" in show.finding(broken)
    assert "-> Do this." in show.finding(broken)
    assert show.finding(well).startswith("ok  ")
    assert "\x1b" not in show.finding(broken) + show.finding(well)
