"""One connection on a pair of sockets, without a process."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import pytest

from stack.wsgi import connection as connections
from stack.wsgi.connection import HEAD_WITHIN, IDLE_WITHIN, SLOWEST, STALL, Connection, Service
from stack.wsgi.environ import Origin
from stack.wsgi.protocol import Protocol
from stack.wsgi.response import FileWrapper

from .conftest import packet, wait_until
from .wire import fastcgi, records, scgi, stdout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read() or b"hello"]


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    near, far = socket.socketpair()
    far.setblocking(False)
    service = Service(app, memoryview(bytearray(8)).cast("d"))
    connection = Connection(near, "", Origin(trusted=True), service, None)
    yield connection, far
    near.close()
    far.close()


def answered(
    data: bytes,
    app: Callable[..., Iterable[bytes]] = app,
    *,
    max_body: int = 0,
    draining: bool = False,
) -> tuple[bytes, bool]:
    """What comes back for these bytes, and whether the connection stays."""
    near, far = socket.socketpair()
    with near, far:
        service = Service(app, memoryview(bytearray(8)).cast("d"), max_body=max_body)
        service.draining = draining
        far.send(data)
        stays = Connection(near, "", Origin(trusted=True), service, None).advance(0)
        far.setblocking(False)
        return far.recv(100_000), stays


Pair = tuple[Connection, socket.socket]


def test_silent_connection_is_waited_for_and_then_closed_without_a_word(pair: Pair) -> None:
    connection, far = pair
    assert connection.advance(0)
    assert connection.idle
    assert connection.deadline == connection.since + HEAD_WITHIN
    connection.expire()
    assert far.recv(100) == b""


def test_slow_head_is_told_408(pair: Pair) -> None:
    connection, far = pair
    far.send(b"GET / HT")
    assert connection.advance(0)
    assert not connection.idle
    deadline = connection.deadline
    far.send(b"TP/1.1\r\n")
    assert connection.advance(0)
    assert connection.deadline == deadline, "dribbling wins no time"
    connection.expire()
    assert far.recv(100).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_slow_uwsgi_packet_is_closed(pair: Pair) -> None:
    connection, far = pair
    far.send(packet({"REQUEST_METHOD": "GET"})[:9])
    assert connection.advance(0)
    connection.expire()
    assert far.recv(100) == b""


def test_kept_alive_connection_may_be_idle_for_longer(pair: Pair) -> None:
    connection, far = pair
    far.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.advance(0)
    assert far.recv(1000).endswith(b"\r\n\r\nhello")
    assert connection.idle
    assert connection.deadline == connection.since + IDLE_WITHIN
    far.send(b"G")
    assert connection.advance(0)
    assert connection.deadline < connection.since + IDLE_WITHIN


def test_refused_request_is_answered_and_the_rest_of_it_dropped(pair: Pair) -> None:
    connection, far = pair
    far.send(b"GET / HTTP/1.1\r\n\r\n")
    assert connection.advance(0), "it lingers"
    assert far.recv(1000).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert far.recv(1000) == b""
    far.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.advance(0)
    assert far.recv(1000) == b"", "what comes after a refused request is no request"
    far.shutdown(socket.SHUT_WR)
    assert not connection.advance(0)


@pytest.mark.parametrize("only", list(Protocol))
def test_address_may_take_one_protocol_only(only: Protocol) -> None:
    variables = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    requests = {
        Protocol.HTTP: b"GET / HTTP/1.0\r\n\r\n",
        Protocol.UWSGI: packet(variables),
        Protocol.FASTCGI: fastcgi(variables),
        Protocol.SCGI: scgi(variables),
    }
    for protocol, data in requests.items():
        near, far = socket.socketpair()
        with near, far:
            service = Service(app, memoryview(bytearray(8)).cast("d"))
            far.send(data)
            connection = Connection(near, "", Origin(trusted=False), service, only)
            assert not connection.advance(0)
            connection.close()
            assert (b"hello" in far.recv(1000)) is (protocol is only)


@pytest.mark.parametrize("path", ["http", "uwsgi", "fastcgi", "scgi"])
def test_request_split_at_every_byte_is_answered_the_same(path: str) -> None:
    data = {
        "http": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        "uwsgi": packet({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "3"}) + b"abc",
        "fastcgi": fastcgi({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "3"}, b"abc"),
        "scgi": scgi({"REQUEST_METHOD": "POST", "PATH_INFO": "/"}, b"abc"),
    }[path]
    body = 8 + 3 + 8 if path == "fastcgi" else 3  # it is read blocking, on demand
    for at in range(1, len(data) - body):
        near, far = socket.socketpair()
        with near, far:
            service = Service(app, memoryview(bytearray(8)).cast("d"))
            connection = Connection(near, "", Origin(trusted=True), service, None)
            far.send(data[:at])
            assert connection.advance(0)
            far.send(data[at:])
            assert not connection.advance(0)
            data_back = far.recv(1000)
            assert (stdout(records(data_back)) if path == "fastcgi" else data_back).endswith(b"\r\n\r\nabc")


def unread(_: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("403 Forbidden", [])
    return [b"not read"]


def test_body_that_was_not_read_is_waited_for_without_a_thread(pair: Pair) -> None:
    connection, far = pair
    connection._service.app = unread
    far.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    assert connection.advance(0)
    assert far.recv(1000).endswith(b"not read")
    assert not connection.idle
    assert connection._service.progress[0] == 0.0, "its thread is free"
    deadline = connection.deadline
    far.send(b"c")
    assert connection.advance(0)
    assert connection.deadline == deadline, "dribbling wins no time"
    far.send(b"deGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.advance(0)
    assert connection.idle, "no more than the body was read"
    assert connection.advance(0)
    assert far.recv(1000).endswith(b"not read")


def test_body_that_was_not_read_and_does_not_come_ends_the_connection(pair: Pair) -> None:
    connection, far = pair
    connection._service.app = unread
    far.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    assert connection.advance(0)
    assert far.recv(1000).endswith(b"not read")
    connection.expire()
    assert far.recv(1000) == b""


def test_request_that_waits_for_its_client_is_not_stuck(pair: Pair) -> None:
    connection, far = pair
    progress = connection._service.progress
    seen: list[bool] = []

    def reading(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        seen.append(progress[0] > 0)
        environ["wsgi.input"].read()
        seen.append(progress[0] > 0)
        return app(environ, start_response)

    connection._service.app = reading
    far.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
    thread = threading.Thread(target=connection.advance, args=(0,))
    thread.start()
    wait_until(lambda: seen and progress[0] == 0.0, "it waits for the body")
    far.send(b"a")
    thread.join()
    assert seen == [True, True]
    assert progress[0] == 0.0


def test_client_is_waited_for_no_longer_than_its_bytes_earn(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        service = Service(app, memoryview(bytearray(8)).cast("d"))
        assert Connection(near, "", Origin(trusted=True), service, None)._left == float("inf"), "a web server is"
        client = Connection(near, ("192.0.2.1", 5), Origin(trusted=False), service, None)
        assert client._left == STALL
        client._left = -1.0
        client._moved(round(3 * SLOWEST))
        assert client._left == 2.0
        client._moved(1 << 40)
        assert client._left == STALL
        monkeypatch.setattr(connections, "STALL", 0.0)
        client = Connection(near, ("192.0.2.1", 5), Origin(trusted=False), service, None)
        far.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
        assert client.advance(0), "it lingers"
        assert far.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("peer", "stall"),
    [
        (("192.0.2.1", 5), 0.0),
        ("", 0.01),  # a web server: the kernel waits for it
    ],
)
def test_peer_that_does_not_take_its_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, peer: object, stall: float
) -> None:
    closed: list[object] = []

    class Large:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x" * 1_000_000] * 9)

        def close(self) -> None:
            closed.append(self)

    def large(_: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Large()

    monkeypatch.setattr(connections, "STALL", stall)
    near, far = socket.socketpair()
    with near, far:
        service = Service(large, memoryview(bytearray(8)).cast("d"))
        client = Connection(near, peer, Origin(trusted=False), service, None)
        far.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not client.advance(0)
        assert service.progress[0] == 0.0
    assert len(closed) == 1, "the app's iterable is closed, once"


def test_app_may_do_what_it_likes_to_its_environ(pair: Pair) -> None:
    def clears(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        environ.clear()
        start_response("200 OK", [])
        return [b"hello"]

    connection, far = pair
    connection._service.app = clears
    connection._service.bulkhead.slow["GET /report"] = 1.0
    for _ in range(2):
        far.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Start: 1.0\r\n\r\n")
        assert connection.advance(0)
        assert far.recv(1000).endswith(b"hello")


def test_web_server_that_is_slow_gets_large_answers_whole_after_a_file_too(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10_000)
    data = [os.urandom(1_000_000) for _ in range(3)]
    came: list[bytes] = []

    def large(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/file":
            return FileWrapper((tmp_path / "file").open("rb"))
        return data[:1] if environ["PATH_INFO"] == "/one" else iter(data)

    def ask() -> None:
        for path in ("/one", "/file", "/many", "/one"):
            far.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            with HTTPResponse(far) as response:
                response.begin()
                came.append(response.read())

    connection, far = pair
    far.setblocking(True)
    connection._service.app = large
    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: connection.advance(0) and len(came) == 4, "it has all")
    client.join()
    assert came == [data[0], (tmp_path / "file").read_bytes(), b"".join(data), data[0]]
    assert connection._service.progress[0] == 0.0


def test_expiry_waits_for_nobody(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, far = pair
    far.send(b"GET / HT")
    assert connection.advance(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.sock.send(b"x" * 65536, socket.MSG_DONTWAIT)
    waits: list[object] = []
    monkeypatch.setattr(Connection, "_wait", lambda *each: waits.append(each))
    connection.expire()
    assert not waits
    assert connection.sock.fileno() < 0


def test_next_request_on_its_way_does_not_cost_the_answer_while_draining() -> None:
    data, stays = answered(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2, draining=True)
    assert data.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nConnection: close\r\n" in data
    assert stays, "it lingers, for closing would reset"


HTTP_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
LENGTH = HTTP_HEAD + b"Content-Length: %d\r\n\r\n"
CHUNKS = HTTP_HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"


def test_body_of_the_largest_size_is_taken() -> None:
    assert answered(LENGTH % 6 + b"abcdef", max_body=6)[0].endswith(b"abcdef")
    assert answered(CHUNKS, max_body=6)[0].endswith(b"abcdef")
    uwsgi = packet({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "6"}) + b"abcdef"
    assert answered(uwsgi, max_body=6)[0].endswith(b"abcdef")


@pytest.mark.parametrize(
    "data",
    [
        LENGTH % 6,
        LENGTH % 6 + b"abcdef",
        LENGTH.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") % 6,
        packet({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "6"}),
    ],
)
def test_body_announced_too_large_is_413_and_never_the_apps(data: bytes) -> None:
    called: list[object] = []

    def never(*each: object) -> Iterable[bytes]:
        called.append(each)
        return []

    found, stays = answered(data, never, max_body=5)
    assert found.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert data.startswith(b"\0") or b"\r\nConnection: close\r\n" in found
    assert stays, "it lingers"
    assert not called


def test_chunked_body_that_becomes_too_large_is_413() -> None:
    found, stays = answered(CHUNKS, max_body=5)
    assert found.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert b"\r\nConnection: close\r\n" in found
    assert stays, "it lingers"


@pytest.mark.parametrize(("status", "told"), [("500 Internal Server Error", 413), ("422 Unprocessable", 422)])
def test_app_that_turns_the_error_into_its_500_is_overruled_and_else_heard(status: str, told: int) -> None:
    def catching(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        with pytest.raises(OSError, match="exceeds 5 bytes"):
            environ["wsgi.input"].read()
        start_response(status, [])
        return [b"caught"]

    found, _ = answered(CHUNKS, catching, max_body=5)
    assert found.startswith(f"HTTP/1.1 {told} ".encode())
    assert b"\r\nConnection: close\r\n" in found


def test_answer_that_has_begun_is_broken_off_when_the_body_becomes_too_large() -> None:
    def late(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"some"
        yield environ["wsgi.input"].read()

    found, stays = answered(CHUNKS, late, max_body=5)
    assert found.endswith(b"4\r\nsome\r\n")
    assert not stays
