"""Pieces of an answer that come fast go out together, and none waits for what the app makes next."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from stack.wsgi.gathering import FULL, MOST, SOON, Gathering, Pieces
from stack.wsgi.state import read

from . import wire
from .conftest import Server, everything
from .conftest import request as plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROTOCOLS = ["http", "uwsgi", "fastcgi", "scgi"]


def request(protocol: str, path: str) -> bytes:
    if protocol != "http":
        return plain(protocol, path)
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


def body(protocol: str, answer: bytes) -> bytes:
    if protocol == "fastcgi":
        answer = b"".join(content for kind, _, content in wire.records(answer) if kind == "STDOUT")
    found = answer.partition(b"\r\n\r\n")[2]
    return b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n", found, re.DOTALL)) if protocol == "http" else found


def numbers(last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, last + 1))


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_none_waits_for_what_the_app_makes_next(server: Server, folder: Path, protocol: str) -> None:
    with server.connect() as sock:
        sock.sendall(request(protocol, f"/numbers?1000,{folder}/"))
        answer = b""
        for hundred in range(100, 1001, 100):
            while len(body(protocol, answer)) < len(numbers(hundred)):
                answer += sock.recv(65536)
            assert body(protocol, answer) == numbers(hundred)
            (folder / str(hundred)).touch()
        assert body(protocol, answer + everything(sock)) == numbers(1000)


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_came_before_an_error_is_sent(server: Server, protocol: str) -> None:
    answer = server.raw(request(protocol, "/burst"))
    assert body(protocol, answer) == b"0\n" + numbers(99)
    assert not answer.endswith((b"0\r\n\r\n", wire.record("END_REQUEST", 1, bytes(8))))


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_come_in_their_order_and_in_few_parts(server: Server, protocol: str) -> None:
    answer = server.raw(request(protocol, "/numbers?100000"))
    assert body(protocol, answer) == numbers(100_000)
    if protocol == "http":
        assert len(re.findall(rb"\r\n[0-9a-f]+\r\n", answer)) < 1000


@pytest.mark.e2e
def test_request_that_has_ended_is_not_taken_for_one_in_hand(launch: Callable[..., Server], folder: Path) -> None:
    """The main thread, when it sends, says that the request gets on."""
    server = launch("wsgi_odd:app", "--workers", "1", "--state", str(folder / "state"))
    for _ in range(300):
        assert body("uwsgi", server.raw(request("uwsgi", "/numbers?200"))) == numbers(200)
    assert [each["current"] for each in read(str(folder / "state"))["workers"]] == [[]]


# What the main thread does, here the test's.


class Peer:
    """A connection whose other end is here, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sock, self.other = socket.socketpair()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.sock.setblocking(False)
        self.other.setblocking(False)
        self.gathering = Gathering()
        self.calls = 0
        self.gathering.call = self._call
        self.pieces = Pieces(self.gathering, self.send, self.sock.send)
        self.pieces.frame = lambda data: b"<%b>" % data

    def _call(self) -> None:
        self.calls += 1
        self.flush(0.0)

    def send(self, data: bytes) -> None:
        self.sock.sendall(self.pieces.take() + data)

    def flush(self, after: float) -> None:
        self.now += after
        self.gathering.flush(self.now)

    @property
    def within(self) -> float:
        return self.gathering.within(self.now)

    def add(self, *pieces: bytes) -> None:
        for each in pieces:
            self.pieces.add(each)

    def arrived(self) -> bytes:
        with suppress(BlockingIOError):
            return self.other.recv(65536)
        return b""


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """One to which a piece has been sent just now."""
    made = Peer()
    monkeypatch.setattr("stack.wsgi.gathering.monotonic", lambda: made.now)
    with made.sock, made.other:
        made.add(b"first")
        assert made.arrived() == b"<first>"
        yield made


def test_what_comes_soon_after_is_sent_a_moment_later(peer: Peer) -> None:
    assert peer.within == float("inf")
    peer.add(b"a", b"b")
    assert (peer.arrived(), peer.calls) == (b"", 1)
    assert peer.within == pytest.approx(SOON)
    peer.flush(SOON / 2)
    assert peer.arrived() == b""
    peer.flush(SOON / 2)
    assert peer.arrived() == b"<ab>"
    peer.add(b"c")
    assert (peer.arrived(), peer.calls) == (b"", 1), "it is looked at still"
    peer.flush(SOON)
    assert peer.arrived() == b"<c>"
    peer.flush(SOON)
    assert peer.within == float("inf")


def test_what_comes_late_is_sent_at_once(peer: Peer) -> None:
    for moment in range(3):
        peer.now += 2 * SOON
        peer.add(b"%d" % moment)
        assert peer.arrived() == b"<%d>" % moment
    peer.add(b"soon")
    for _ in range(2):
        peer.flush(2 * SOON)
    assert peer.arrived() == b"<soon>"
    peer.add(b"late")
    assert (peer.arrived(), peer.calls) == (b"<late>", 1)


def test_what_its_own_thread_sends_comes_after_what_has_been_gathered(peer: Peer) -> None:
    peer.add(b"a", b"b")
    peer.send(b"end")
    assert peer.arrived() == b"<ab>end"
    peer.flush(SOON)
    assert peer.arrived() == b""
    assert peer.within == float("inf")


def test_much_waits_for_nothing(peer: Peer) -> None:
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MOST)
    peer.add(b"a", b"b" * MOST)
    assert peer.arrived() == b"<a><%b>" % (b"b" * MOST)
    half = b"c" * (MOST // 2)
    peer.add(half)
    assert peer.arrived() == b""
    peer.add(half)
    assert peer.arrived() == b"<%b>" % (2 * half)


def test_main_thread_waits_for_nobody(peer: Peer) -> None:
    """Who takes nothing is tried again, and gets all in its order."""
    many = [b"%06d" % number for number in range(4000)]
    peer.add(*many)
    peer.flush(SOON)
    assert peer.within == pytest.approx(FULL)
    found = peer.arrived()
    assert 0 < len(found) < 6 * 4000
    while peer.within < float("inf"):
        peer.flush(FULL)
        found += peer.arrived()
    assert found == b"<%b>" % b"".join(many)


def test_who_takes_nothing_is_waited_for_by_its_own_thread_at_the_next_piece(peer: Peer) -> None:
    """Which counts that as its peer's affair. The main thread only sees that there is no room."""
    many = [b"%06d" % number for number in range(4000)]
    peer.add(*many)
    peer.flush(SOON)
    with pytest.raises(BlockingIOError):  # in place of its wait
        peer.add(b"last")


def test_that_its_peer_has_gone_is_left_to_its_own_thread(peer: Peer) -> None:
    peer.add(b"a")
    peer.other.close()
    peer.flush(SOON)
    assert peer.within == float("inf")
    with pytest.raises(BrokenPipeError):
        peer.add(b"next")
