"""Facing clients without a web server: the public socket is inherited, and shared with a successor."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import pytest

from .conftest import WITHIN, Server, everything, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

HANDOVERS = 5
REQUESTS = 20  # that each client makes at least between two handovers
DATA = b"0123456789" * 100_000


@pytest.fixture
def public() -> Iterator[socket.socket]:
    """A listening socket such as a supervisor holds."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)
        yield listening


@pytest.fixture
def generation(launch: Callable[..., Server], public: socket.socket) -> Callable[..., Server]:
    """Starts a server on the public socket and on a unix socket of its own, and waits until that one answers."""

    def start(*arguments: str) -> Server:
        fd = public.fileno()
        return launch("wsgi_odd:app", "--bind", f"fd://{fd}", *arguments, pass_fds=[fd])

    return start


def test_public_and_private_socket_serve_the_same(generation: Callable[..., Server], public: socket.socket) -> None:
    server = generation("--socket-mode", "660")
    assert server.path.stat().st_mode & 0o777 == 0o660
    with socket.create_connection(public.getsockname()) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert everything(sock).endswith(b"hello\n")


@pytest.mark.parametrize("protocol", ["http", "uwsgi", "scgi"])
def test_static_files_come_without_the_app(launch: Callable[..., Server], folder: Path, protocol: str) -> None:
    (folder / "static").mkdir()
    (folder / "static" / "a.css").write_bytes(DATA)
    (folder / "secret").touch()
    server = launch("wsgi_odd:app", "--static", f"/static/={folder}/static")

    def ask(path: str, method: str = "GET") -> bytes:
        return server.raw(request(protocol, path, b"", method)).replace(b"Status: ", b"HTTP/1.1 ", 1)

    head, _, body = ask("/static/a.css").partition(b"\r\n\r\n")
    assert body == DATA
    assert b"\r\nContent-Type: text/css\r\n" in head
    assert ask("/static/a.css", "HEAD").partition(b"\r\n\r\n")[2] == b""
    assert ask("/static/a.css", "DELETE").startswith(b"HTTP/1.1 405 ")
    assert ask("/static/missing").startswith(b"HTTP/1.1 404 ")
    assert ask("/").endswith(b"hello\n")


@pytest.mark.parametrize(
    "up", ["..", "%2e%2e", ".%2E", "..%2f..", "%2e%2e%2f%2e%2e", "..%5c..", "%5c..", "..%00", "%00"]
)
def test_no_path_leaves_the_folder(launch: Callable[..., Server], folder: Path, up: str) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    for name in ("a/secret", "secret"):
        (folder / name).write_text("secret")
    server = launch("wsgi_odd:app", "--static", f"/static={folder}/a/b", "--static", f"/static/deep={folder}/a/b")
    for path in (
        f"/static/{up}/secret",
        f"/static/{up}%2fsecret",
        f"/static//{up}/secret",
        f"/static/deep/{up}/secret",
    ):
        assert server.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.1 404 "), path


def test_file_and_conditions_on_a_kept_connection(launch: Callable[..., Server], folder: Path) -> None:
    (folder / "a").write_bytes(DATA)
    client = launch("wsgi_odd:app", "--static", f"/s={folder}").client()
    client.request("GET", "/s/a")
    sock = client.sock
    whole = client.getresponse()
    assert whole.read() == DATA
    tag = whole.getheader("ETag")
    for headers, status, data in (
        ({"If-None-Match": tag}, 304, b""),
        ({"Range": "bytes=5-14"}, 206, DATA[5:15]),
        ({"Range": "bytes=9999999-"}, 416, b"Range Not Satisfiable\n"),
        ({"Range": "bytes=-999995"}, 206, DATA[5:]),
    ):
        client.request("GET", "/s/a", headers=headers)  # type: ignore[arg-type]
        response = client.getresponse()
        assert (response.status, response.read()) == (status, data)
    assert client.sock is sock
    client.close()


@pytest.mark.parametrize("protocol", ["http", "uwsgi", "fastcgi", "scgi"])
def test_body_over_the_limit_is_413(launch: Callable[..., Server], protocol: str) -> None:
    server = launch("wsgi_odd:app", "--max-body", "1000")
    for size, status in ((1000, b" 200 "), (1001, b" 413 "), (500_000, b" 413 ")):
        data = server.raw(request(protocol, "/echo", b"x" * size, "POST"))
        assert status in data.partition(b"\r\n")[0]
    assert "a body of 1001 bytes, over 1000 (--max-body)" in server.log


@pytest.mark.parametrize("protocol", ["http", "uwsgi", "fastcgi", "scgi"])
def test_head_over_the_limit_is_431_and_the_setting_is_named(launch: Callable[..., Server], protocol: str) -> None:
    server = launch("wsgi_odd:app", "--max-head", "2000")
    for size, status in ((500, b" 200 "), (2001, b" 431 ")):
        data = server.raw(request(protocol, f"/?{'x' * size}"))
        assert status in data.partition(b"\r\n")[0], size
    assert "refused a request with 431: a head over 2000 bytes (--max-head)" in server.log
    assert server.raw(b"GET /" + b"x" * 2000).startswith(b"HTTP/1.1 414 ")


def test_head_that_is_not_complete_in_time_is_408_and_the_setting_is_named(launch: Callable[..., Server]) -> None:
    server = launch("wsgi_odd:app", "--head-within", "0.1")
    assert server.raw(b"GET / HTTP/1.1\r\nHo").startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert "refused a request with 408: the head took longer than 0.1 s (--head-within)" in server.log
    assert server.get("/")[1] == b"hello\n"


def test_nothing_is_continued_that_is_too_large(launch: Callable[..., Server]) -> None:
    server = launch("wsgi_odd:app", "--max-body", "2")
    data = server.raw(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", end=True)
    assert data.startswith(b"HTTP/1.1 413 ")


def test_dribbling_clients_take_no_thread(generation: Callable[..., Server], public: socket.socket) -> None:
    """With one thread in all: heads that are not complete, bodies that nobody reads, connections without a word."""
    server = generation("--workers", "1", "--threads", "1")
    with contextlib.ExitStack() as stack:
        for data in (b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX-A", LONG_UNREAD):
            for _ in range(20):
                sock = stack.enter_context(socket.create_connection(public.getsockname(), WITHIN))
                sock.sendall(data)
                if data == LONG_UNREAD:
                    assert sock.recv(1000).startswith(b"HTTP/1.1 403 ")
                assert server.get("/")[1] == b"hello\n"


LONG_UNREAD = b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nx"


class Client(threading.Thread):
    """Makes requests until it is told to stop, and counts what becomes of them."""

    def __init__(self, address: tuple[str, int], method: str, *, keeps: bool, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self._address = address
        self._method = method
        self._keeps = keeps
        self._stop_asked = stop

    def run(self) -> None:
        connection = HTTPConnection(*self._address, timeout=WITHIN)
        while not self._stop_asked.wait(0.005):
            reused = connection.sock is not None
            try:
                self._request(connection)
            except (OSError, HTTPException) as error:
                self.counts["lost on a reused connection" if reused else "failed"] += 1
                self.errors.append(repr(error))
                connection.close()
        connection.close()

    def _request(self, connection: HTTPConnection) -> None:
        body = b"x" * 3000 if self._method == "POST" else None
        headers = {} if self._keeps else {"Connection": "close"}
        connection.request(self._method, "/echo" if body else "/", body, headers)
        response = connection.getresponse()
        right = response.status == 200 and response.read() == (body or b"hello\n")
        self.counts["done" if right else "failed"] += 1
        if self._keeps and response.getheader("Connection") == "close":
            self.counts["told to close"] += 1


def test_handover_loses_no_request(generation: Callable[..., Server], public: socket.socket) -> None:
    stop = threading.Event()
    server = generation()
    clients = [
        Client(public.getsockname(), method, keeps=keeps, stop=stop)
        for method in ("GET", "POST")
        for keeps in (True, False)
        for _ in range(3)
    ]
    for client in clients:
        client.start()
    try:
        for _ in range(HANDOVERS):
            idle = [kept(public) for _ in range(6)]
            hand_over(server, server := generation(), idle, clients)
    finally:
        stop.set()
        for client in clients:
            client.join(WITHIN)
    total = sum((client.counts for client in clients), Counter())
    errors = [error for client in clients for error in client.errors]
    assert (total["failed"], total["lost on a reused connection"]) == (0, 0), (total, errors[:5])
    assert total["told to close"] >= HANDOVERS, total


def hand_over(old: Server, new: Server, idle: list[HTTPConnection], clients: list[Client]) -> None:
    """Stop the old one, which has idle connections; the new one has answered on its own socket."""
    old.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not old.path.exists(), "the drain has begun")
    for client in idle:
        wait_until(lambda client=client: told_to_close(client), "an idle connection is used, and told to close")  # type: ignore[misc]
    assert old.process.wait(WITHIN) == 0
    assert "killed" not in old.log
    before = [client.counts["done"] for client in clients]
    wait_until(
        lambda: all(each.counts["done"] >= most + REQUESTS for each, most in zip(clients, before, strict=True)),
        f"every client gets on with the new one, not: {[each.counts for each in clients]}, {new.log}",
    )


def told_to_close(client: HTTPConnection) -> bool:
    """Make a request on a kept connection, which must be answered; whether it is the last one."""
    assert client.sock is not None
    client.request("POST", "/echo", b"late")
    response = client.getresponse()
    assert (response.status, response.read()) == (200, b"late")
    return response.getheader("Connection") == "close"


def kept(public: socket.socket) -> HTTPConnection:
    """A connection that has been used once."""
    host, port = public.getsockname()
    client = HTTPConnection(host, port, timeout=WITHIN)
    client.request("GET", "/")
    assert client.getresponse().read() == b"hello\n"
    return client
