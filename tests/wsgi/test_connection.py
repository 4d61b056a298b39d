"""One connection on a pair of sockets, without a process."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from stack.wsgi.connection import HEAD_WITHIN, IDLE_WITHIN, Connection, Service
from stack.wsgi.environ import Origin
from stack.wsgi.protocol import Protocol

from .conftest import packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read() or b"hello"]


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    near, far = socket.socketpair()
    far.setblocking(False)
    service = Service(app, memoryview(bytearray(8)).cast("d"), [None])
    connection = Connection(near, "", Origin(trusted=True), service, None)
    yield connection, far
    near.close()
    far.close()


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
    wrong = {Protocol.HTTP: packet({"REQUEST_METHOD": "GET"}), Protocol.UWSGI: b"GET / HTTP/1.0\r\n\r\n"}[only]
    near, far = socket.socketpair()
    with near, far:
        service = Service(app, memoryview(bytearray(8)).cast("d"), [None])
        far.send(wrong)
        assert not Connection(near, "", Origin(trusted=False), service, only).advance(0)


@pytest.mark.parametrize("path", ["http", "uwsgi"])
def test_request_split_at_every_byte_is_answered_the_same(path: str) -> None:
    data = {
        "http": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        "uwsgi": packet({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "3"}) + b"abc",
    }[path]
    for at in range(1, len(data) - 3):  # the body is read blocking, on demand
        near, far = socket.socketpair()
        with near, far:
            service = Service(app, memoryview(bytearray(8)).cast("d"), [None])
            connection = Connection(near, "", Origin(trusted=True), service, None)
            far.send(data[:at])
            assert connection.advance(0)
            far.send(data[at:])
            assert not connection.advance(0)
            assert far.recv(1000).endswith(b"\r\n\r\nabc")
