"""FastCGI on a connection: what is answered, what is replied, and when it closes."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stack.wsgi.connection import HEAD_WITHIN, IDLE_WITHIN, Connection, Service
from stack.wsgi.environ import Origin
from stack.wsgi.response import FileWrapper

from . import wire
from .conftest import WITHIN, Server

GET = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
POST = {"REQUEST_METHOD": "POST", "PATH_INFO": "/"}

StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


def echo(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read() or b"hello"]


def unread(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("403 Forbidden", [])
    return [b"not read"]


class Pair:
    """A connection, and the web server's end of it."""

    def __init__(self, app: App, *, draining: bool = False, max_body: int = 0) -> None:
        near, self.far = socket.socketpair()
        self.far.setblocking(False)
        service = Service(app, memoryview(bytearray(8)).cast("d"), max_body=max_body)
        service.draining = draining
        self.connection = Connection(near, "", Origin(trusted=True), service, None)

    def say(self, data: bytes) -> bool:
        """Send this; whether the connection stays."""
        self.far.sendall(data)
        stays = True
        while stays and select.select([self.connection.sock], [], [], 0)[0]:
            stays = self.connection.advance(0)
        if not stays:
            self.connection.close()
        return stays

    def heard(self) -> list[tuple[str, int, bytes]]:
        """The records that came."""
        data = b""
        while True:
            try:
                part = self.far.recv(1 << 20)
            except BlockingIOError:
                break
            if not part:
                break
            data += part
        return list(wire.records(data))

    def said(self) -> bytes:
        """What a CGI program would have said."""
        return wire.stdout(self.heard())


@pytest.fixture
def pair() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(app: App = echo, **options: Any) -> Pair:
        made.append(Pair(app, **options))
        return made[-1]

    yield make
    for each in made:
        each.connection.close()
        each.far.close()


Make = Callable[..., Pair]


def test_answer_begins_as_in_cgi_and_the_connection_closes_unless_it_is_to_be_kept(pair: Make) -> None:
    closing = pair()
    assert not closing.say(wire.fastcgi(GET))
    head, _, body = closing.said().partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 200 OK\r\n")
    assert b"\r\nContent-Length: 5\r\n" in head
    assert b"Connection:" not in head
    assert b"Transfer-Encoding" not in head
    assert body == b"hello"
    kept = pair()
    for number in range(3):
        assert kept.say(wire.fastcgi(POST, b"no%d" % number, keep=True))
        assert kept.said().endswith(b"\r\n\r\nno%d" % number)
        assert kept.connection.idle
        assert kept.connection.deadline == kept.connection.since + IDLE_WITHIN
    assert not kept.say(wire.fastcgi(GET)), "the last one is not to be kept"


def test_requests_that_came_together_are_answered_in_order(pair: Make) -> None:
    many = pair()
    assert many.say(b"".join(wire.fastcgi(POST, b"no%d" % each, keep=True) for each in range(5)))
    said = b"".join(content for kind, _, content in many.heard() if kind == "STDOUT")
    assert [said.find(b"no%d" % each) for each in range(5)] == sorted(said.find(b"no%d" % each) for each in range(5))
    assert said.count(b"Status: 200 OK") == 5


def test_body_of_any_size_arrives_and_goes_out_in_records(pair: Make) -> None:
    data = b"0123456789" * 50_000
    for most in (65535, 8192, 1000):
        both = pair()
        request = wire.fastcgi(POST, data, keep=True, most=most)
        both.far.setblocking(True)
        feeding = threading.Thread(target=both.far.sendall, args=(request,))
        serving = threading.Thread(target=serve, args=(both.connection,))
        feeding.start()
        serving.start()
        heard = everything(both.far)
        feeding.join()
        serving.join()
        assert wire.stdout(wire.records(heard)).partition(b"\r\n\r\n")[2] == data


def serve(connection: Connection) -> None:
    """All that arrives, up to the end of a request, and close."""
    select.select([connection.sock], [], [])
    while connection.advance(0) and not connection.idle:
        select.select([connection.sock], [], [])
    connection.close()


def everything(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


def test_file_is_sent_by_the_kernel_in_records(pair: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789" * 15_000)

    def app(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return FileWrapper((tmp_path / "file").open("rb"))

    files = pair(app)
    assert files.say(wire.fastcgi(GET, keep=True))
    heard = files.heard()
    assert wire.stdout(heard).endswith(b"\r\n\r\n" + b"0123456789" * 15_000)
    assert [len(content) for _, _, content in heard[1:-2]] == [65528, 65528, 150_000 - 2 * 65528]


def test_answer_that_breaks_off_has_no_end_and_a_record_that_no_nginx_takes(pair: Make) -> None:
    def app(_: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"some"
        raise RuntimeError("half-way")

    broken = pair(app)
    assert not broken.say(wire.fastcgi(GET, keep=True))
    assert [kind for kind, _, _ in broken.heard()] == ["STDOUT", "UNKNOWN_TYPE"]


def test_status_header_of_the_app_does_not_overrule_its_status(pair: Make) -> None:
    def app(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Status", "500 Odd"), ("X-A", "1")])
        return [b""]

    odd = pair(app)
    odd.say(wire.fastcgi(GET))
    said = odd.said()
    assert said.count(b"Status:") == 1
    assert b"\r\nX-A: 1\r\n" in said


def test_request_that_is_split_is_waited_for_and_dribbling_wins_no_time(pair: Make) -> None:
    slow = pair()
    data = wire.fastcgi(GET, keep=True)
    assert slow.say(data[:20])
    deadline = slow.connection.deadline
    assert deadline == slow.connection.since + HEAD_WITHIN
    for at in range(20, 40):
        assert slow.say(data[at : at + 1])
        assert slow.connection.deadline == deadline
        assert not slow.connection.idle
    assert slow.say(data[40:])
    assert slow.said().endswith(b"hello")


def test_web_server_is_told_what_it_asks_before_any_request(pair: Make) -> None:
    asked = pair()
    assert asked.say(wire.record("GET_VALUES", 0, wire.pairs({"FCGI_MPXS_CONNS": "", "OTHER": ""})))
    assert asked.heard() == [("GET_VALUES_RESULT", 0, wire.pairs({"FCGI_MPXS_CONNS": "0"}))]
    assert asked.connection.idle
    assert asked.say(wire.fastcgi(GET, keep=True))
    assert asked.said().endswith(b"hello")


def test_replies_are_sent_while_the_app_waits_for_the_body(pair: Make) -> None:
    waiting = pair()
    data = wire.fastcgi(POST, b"body", keep=True)
    at = len(data) - len(wire.record("STDIN", 1, b"body")) - len(wire.record("STDIN", 1))
    waiting.far.setblocking(True)
    waiting.far.sendall(data[:at] + wire.begin(2))
    thread = threading.Thread(target=waiting.connection.advance, args=(0,))
    thread.start()
    reply = waiting.far.recv(16, socket.MSG_WAITALL)
    assert [*wire.records(reply)] == [("END_REQUEST", 2, b"\0\0\0\0\1\0\0\0")], "FCGI_CANT_MPX_CONN"
    waiting.far.sendall(data[at:])
    thread.join()
    waiting.far.setblocking(False)
    assert waiting.said().endswith(b"body")


@pytest.mark.parametrize("keep", [False, True])
def test_role_that_is_not_ours_is_refused(pair: Make, keep: bool) -> None:  # noqa: FBT001 - a parameter of the test
    other = pair()
    assert other.say(wire.begin(1, role=3, keep=keep)), "it stays, or lingers"
    assert other.heard() == [("END_REQUEST", 1, b"\0\0\0\0\3\0\0\0")]
    if keep:
        assert other.say(wire.fastcgi(GET, keep=True))
        assert other.said().endswith(b"hello")


def test_request_aborted_before_its_body_never_reaches_the_app(pair: Make) -> None:
    called: list[object] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        called.append(environ)
        return echo(environ, start_response)

    aborted = pair(app)
    assert aborted.say(wire.begin(1, keep=True) + wire.record("ABORT_REQUEST", 1))
    assert aborted.heard() == [("END_REQUEST", 1, b"\0\0\0\1\0\0\0\0")]
    assert not called
    assert aborted.say(wire.fastcgi(GET, keep=True))
    assert len(called) == 1


def test_request_aborted_in_its_body_is_an_error_in_the_app_and_ends(pair: Make) -> None:
    aborted = pair()
    data = wire.begin(1, keep=True) + wire.stream("PARAMS", 1, wire.pairs(POST)) + wire.record("STDIN", 1, b"half")
    assert aborted.say(data + wire.record("ABORT_REQUEST", 1))
    heard = aborted.heard()
    assert heard[0][2].startswith(b"Status: 400 ")
    assert heard[-1] == ("END_REQUEST", 1, b"\0\0\0\1\0\0\0\0")
    assert aborted.say(wire.fastcgi(GET, keep=True)), "the connection is kept, as was asked"
    assert aborted.said().endswith(b"hello")


def test_body_that_the_app_left_is_ignored_and_takes_no_thread(pair: Make) -> None:
    left = pair(unread)
    data = wire.fastcgi(POST, b"x" * 100_000, keep=True, most=8192)
    assert left.say(data[:50_000])
    assert left.said().endswith(b"not read")
    assert left.say(data[50_000:] + wire.fastcgi(GET, keep=True))
    assert left.said().endswith(b"not read")
    closing = pair(unread)
    assert closing.say(wire.fastcgi(POST, b"x" * 100_000)[:50_000]), "it lingers: closing would reset"
    assert closing.said().endswith(b"not read")


def test_while_draining_the_connection_closes_after_a_whole_answer(pair: Make) -> None:
    last = pair(draining=True)
    assert last.say(wire.fastcgi(GET, keep=True) * 2), "it lingers"
    heard = last.heard()
    assert wire.stdout(heard).endswith(b"hello")
    assert last.far.recv(10) == b"", "and says that nothing more comes"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (wire.begin(1) + wire.record("PARAMS", 1, wire.pairs({"A": "x" * 60_000})) * 2, 431),
        (wire.begin(1) + wire.stream("PARAMS", 1, wire.pairs({"A": "1"})), 400),
        (wire.fastcgi({**POST, "CONTENT_LENGTH": "nonsense"}), 400),
        (wire.fastcgi({**POST, "CONTENT_LENGTH": "11"}, b"x" * 11), 413),
        (wire.fastcgi(POST, b"x" * 11), 413),
        (wire.fastcgi({**POST, "CONTENT_LENGTH": "9"}, b"x" * 8), 400),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_status(pair: Make, data: bytes, status: int) -> None:
    refused = pair(max_body=10)
    refused.say(data)
    assert refused.said().startswith(b"Status: %d " % status)


@pytest.mark.parametrize("data", [wire.record("STDIN", 0), b"\1\1\0\1\0\2\0\0xx", b"\1\1\0\1\0\0\0\0\2"])
def test_what_is_no_request_is_closed_without_an_answer(pair: Make, data: bytes) -> None:
    nonsense = pair()
    nonsense.say(data)
    assert nonsense.heard() == []
    assert nonsense.far.recv(10) == b""


def next_answer(sock: socket.socket) -> bytes | None:
    """What the next answer on a kept connection says; None if the connection has ended before it."""
    found: list[tuple[str, int, bytes]] = []
    while not found or found[-1][0] != "END_REQUEST":
        header = sock.recv(8, socket.MSG_WAITALL)
        if not header and not found:
            return None
        size = int.from_bytes(header[4:6], "big")
        found += wire.records(header + (sock.recv(size, socket.MSG_WAITALL) if size else b""))
    return wire.stdout(found)


@pytest.mark.e2e
def test_kept_connection_is_served_up_to_a_whole_answer_while_the_server_drains(server: Server) -> None:
    pid = {"REQUEST_METHOD": "GET", "PATH_INFO": "/pid"}
    with server.connect() as sock:
        said = []
        for _ in range(5):
            sock.sendall(wire.fastcgi(pid, keep=True))
            said.append(next_answer(sock))
        assert said[0] is not None
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # where it ended before the next request
            while said[-1] is not None:
                sock.sendall(wire.fastcgi(pid, keep=True))
                said.append(next_answer(sock))
        assert len({each.rpartition(b"\n")[2] for each in said if each}) == 1, "one process has answered them all"
    assert server.process.wait(WITHIN) == 0
    assert "Traceback" not in server.log
