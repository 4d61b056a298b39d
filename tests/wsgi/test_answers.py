"""What a client and an app see of the server: PEP 3333 over HTTP and uwsgi, on real sockets."""

from __future__ import annotations

import ast
import re
import socket
from typing import TYPE_CHECKING

import pytest

from . import wire
from .conftest import WITHIN, Server, everything, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.e2e

PROTOCOLS = ["http", "uwsgi", "fastcgi", "scgi"]
FAILING = [
    *("/exit?system", "/exit?keyboard", "/recursion", "/raise", "/twice", "/never", "/text"),
    *("/header?newline", "/header?type", "/header?name", "/header?hop", "/header?wide"),
    *("/status?100+Continue", "/status?OK", "/status?200+O%0AK"),
]


def ask(server: Server, protocol: str, path: str, body: bytes = b"", method: str = "GET") -> tuple[str, bytes, bytes]:
    """Status line, head and body of an answer."""
    data = server.raw(request(protocol, path, body, method))
    if protocol == "fastcgi":
        data = b"".join(content for kind, _, content in wire.records(data) if kind == "STDOUT")
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0].decode().partition(" ")[2], head, rest


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_chunk_gets_a_length_a_date_and_a_server(server: Server, protocol: str) -> None:
    status, head, body = ask(server, protocol, "/")
    assert (status, body) == ("200 OK", b"hello\n")
    assert b"\r\nContent-Length: 6" in head
    assert head.count(b"\r\nDate: ") == head.count(b"\r\nServer: ") == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_environ_has_what_pep_3333_wants(server: Server, protocol: str) -> None:
    kind, environ = ast.literal_eval(ask(server, protocol, "/environ/%C3%A4%2Fb;c//d?q=%41")[2].decode())
    assert kind == "dict"
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["QUERY_STRING"] == "q=%41"
    assert environ["REQUEST_URI"] == "/environ/%C3%A4%2Fb;c//d?q=%41"
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["SERVER_NAME"] == "localhost"
    assert environ["SERVER_PORT"] == "80"
    assert environ["SERVER_SOFTWARE"].startswith("stackctl/")
    if protocol == "http":
        assert environ["PATH_INFO"] == "/environ/Ã¤/b;c//d"


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 2), (2, 1)])
def test_environ_tells_how_the_app_is_run(launch: Callable[..., Server], workers: int, threads: int) -> None:
    server = launch("wsgi_odd:app", "--workers", str(workers), "--threads", str(threads))
    for protocol in PROTOCOLS:
        environ = ast.literal_eval(ask(server, protocol, "/environ")[2].decode())[1]
        shown = [environ[f"wsgi.{each}"] for each in ("multiprocess", "multithread", "run_once")]
        assert shown == [workers > 1, threads > 1, False]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("path", FAILING)
def test_failure_before_output_is_one_500_and_the_process_goes_on(server: Server, protocol: str, path: str) -> None:
    before = ask(server, protocol, "/pid")[2]
    status, _, body = ask(server, protocol, path)
    assert (status, body) == ("500 Internal Server Error", b"Internal Server Error\n")
    assert ask(server, protocol, "/pid")[2] == before
    assert re.search(rf"GET {re.escape(path)}: raised \(request [0-9a-f]{{32}}\)\n", server.log)
    assert "Error: " in server.log or "Exit: 3" in server.log or "Interrupt: 3" in server.log


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_want_of_memory_is_one_500_and_the_process_is_replaced(launch: Callable[..., Server], protocol: str) -> None:
    server = launch("wsgi_odd:app", "--workers", "1")
    status, _, body = ask(server, protocol, "/exit?memory")
    assert (status, body) == ("500 Internal Server Error", b"Internal Server Error\n")
    assert "MemoryError: 3" in server.log
    wait_until(lambda: "out of memory: this worker is replaced" in server.log, "it is said")
    assert ask(server, protocol, "/pid")[0] == "200 OK"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_error_handler_replaces_status_and_headers(server: Server, protocol: str) -> None:
    status, head, body = ask(server, protocol, "/replaced")
    assert (status, body) == ("503 Service Unavailable", b"replaced")
    assert b"X-Second" in head
    assert b"X-First" not in head


@pytest.mark.parametrize("path", ["/broken", "/late"])
def test_chunked_answer_that_breaks_has_no_last_chunk(server: Server, path: str) -> None:
    data = server.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert data.endswith(b"b\r\nsome output\r\n")
    assert "raised after its answer began" in server.log


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answer_of_announced_length_that_breaks_stays_short(server: Server, protocol: str) -> None:
    _, head, body = ask(server, protocol, "/broken?length")
    assert b"Content-Length: 1000" in head
    assert body == b"some output"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_write_comes_before_the_iterable(server: Server, protocol: str) -> None:
    assert ask(server, protocol, "/write")[2] == b"written and returned"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_exceeds_content_length_is_cut(server: Server, protocol: str) -> None:
    assert ask(server, protocol, "/short")[2] == b"1234"
    assert "exceeds its Content-Length" in server.log


def test_less_than_content_length_ends_the_connection(server: Server) -> None:
    data = server.raw(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
    assert data.endswith(b"\r\n\r\n1234")
    assert "6 bytes short of its Content-Length" in server.log


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cookies_stay_apart_and_own_server_header_wins(server: Server, protocol: str) -> None:
    _, head, _ = ask(server, protocol, "/cookies")
    assert head.count(b"\r\nSet-Cookie: ") == 2
    assert head.count(b"\r\nServer: ") == 1
    assert b"\r\nServer: own" in head


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("status", ["204", "304"])
def test_no_body_where_none_may_be(server: Server, protocol: str, status: str) -> None:
    _, head, body = ask(server, protocol, f"/empty?{status}")
    assert body == b""
    assert (b"Content-Length" in head) is (status == "304")
    assert b"Transfer-Encoding" not in head


def test_no_body_for_head_and_the_connection_stays(server: Server) -> None:
    client = server.client()
    for path in ("/", "/write", "/stream?/", "/file", "/short"):
        client.request("HEAD", path)
        response = client.getresponse()
        assert response.read() == b""
        assert response.status == 200
    client.close()


def test_connection_header_of_the_app_is_dropped(server: Server) -> None:
    data = server.raw(b"GET /header?connection HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"Connection: close" in data
    assert b"keep-alive" not in data


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("length", "size"), [("", 999_995), ("1234", 1234), ("3000000", 999_995)])
def test_file_from_its_position_up_to_content_length(server: Server, protocol: str, length: str, size: int) -> None:
    body = ask(server, protocol, f"/file?{length}")[2]
    assert body == (b"0123456789" * 100_000)[5:][:size]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_file_like_object_works_too(server: Server, protocol: str) -> None:
    assert ask(server, protocol, "/memory")[2] == b"0123456789" * 20_000


@pytest.mark.parametrize("kind", ["end", "raise"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_close_is_called_once(server: Server, folder: Path, kind: str, method: str) -> None:
    record = folder / "record"
    server.raw(f"{method} /closing?{kind},{record} HTTP/1.0\r\n\r\n".encode())
    wait_until(record.exists, "close() was called")
    server.get("/")
    assert record.read_text() == "closed\n"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ["real", "like"])
def test_file_of_the_file_wrapper_is_closed_once(
    server: Server, folder: Path, protocol: str, method: str, kind: str
) -> None:
    record = folder / "record"
    body = ask(server, protocol, f"/closingfile?{kind},{record}", method=method)[2]
    assert body == (b"" if method == "HEAD" else b"of a file")
    wait_until(record.exists, "close() was called")
    server.get("/")
    assert record.read_text() == "closed\n"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_close_is_called_once_when_the_client_goes(server: Server, folder: Path, protocol: str) -> None:
    record = folder / "record"
    path = f"/closing?endless,{record}"
    with server.connect() as sock:
        sock.sendall(request(protocol, path))
        assert sock.recv(10)
    wait_until(record.exists, "close() was called")
    assert record.read_text() == "closed\n"
    assert "Traceback" not in server.log


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_first_chunk_arrives_before_the_last_is_made(server: Server, folder: Path, protocol: str) -> None:
    gate = folder / "gate"
    with server.connect() as sock:
        sock.sendall(request(protocol, f"/stream?{gate}"))
        data = b""
        while b"first\n" not in data:
            data += sock.recv(1000)
        gate.touch()
        assert b"last\n" in everything(sock)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_input_reads_lines(server: Server, protocol: str) -> None:
    assert ask(server, protocol, "/lines", b"first\nsecond\nthird")[2] == repr(
        [b"fir", b"st\n", b"second\n", b"third"]
    ).encode()  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_body_that_stops_short_is_an_error_in_the_app(server: Server, protocol: str) -> None:
    assert b" 400 " in server.raw(request(protocol, "/echo", b"abc", "POST", 10), end=True)
    wait_until(lambda: "7 bytes short of " in server.log, "the log names it")


def test_chunked_body(server: Server) -> None:
    data = server.raw(
        b"POST /lines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nfirs\r\n3;a=b\r\nt\ns\r\n6\r\necond\n\r\n0\r\nTrailer: 1\r\n\r\n"
        b"GET /pid HTTP/1.0\r\n\r\n"
    )
    first, second = data.split(b"HTTP/1.1 200 OK")[1:]
    assert first.endswith(repr([b"fir", b"st\n", b"second\n"]).encode())
    assert second.rpartition(b"\n")[2].isdigit()


def test_chunked_body_has_no_length_and_an_end_of_its_own(server: Server) -> None:
    data = server.raw(
        b"POST /environ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\n\r\n"
    )
    environ = ast.literal_eval(data.partition(b"\r\n\r\n")[2].decode())[1]
    assert environ["wsgi.input_terminated"] is True
    assert "CONTENT_LENGTH" not in environ


def test_broken_chunks_are_an_error_in_the_app(server: Server) -> None:
    data = server.raw(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
    assert data.startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    data = server.raw(b"".join(request + b"no%d" % each for each in range(9)) + b"GET / HTTP/1.0\r\n\r\n")
    bodies = [each.partition(b"\r\n\r\n")[2] for each in data.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [*(b"no%d" % each for each in range(9)), b"hello\n"]


def test_unread_body_is_not_taken_for_a_request(server: Server) -> None:
    inner = b"GET /exit?system HTTP/1.1\r\nHost: a\r\n\r\n"
    data = server.raw(
        b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inner)
        + inner
        + b"GET / HTTP/1.0\r\n\r\n"
    )
    assert data.count(b"HTTP/1.1 ") == 2
    assert data.endswith(b"hello\n")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_unread_body_does_not_cost_the_answer(server: Server, protocol: str) -> None:
    status, _, body = ask(server, protocol, "/unread", b"x" * 5_000_000, "POST")
    assert (status, body) == ("403 Forbidden", b"not read")


def test_continue_is_said_when_the_app_reads(server: Server) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as sock:
        sock.sendall(head % b"/echo")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert sock.recv(1000).endswith(b"abc")
        sock.sendall(head % b"/unread")
        data = everything(sock)
        assert data.startswith(b"HTTP/1.1 403 ")
        assert b"\r\nConnection: close\r\n" in data


def test_old_client_may_keep_its_connection(server: Server) -> None:
    with server.connect() as sock:
        for _ in range(2):
            sock.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            data = sock.recv(1000)
            assert b"\r\nConnection: keep-alive\r\n" in data


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x16\x03\x01\x02\x00", "TLS"),
        (b"\r\n\r\n\x00\r\nQUIT\n", "PROXY"),
        (b"\x02\x01\x00\x01", "none of HTTP, uwsgi with modifier1 0, FastCGI and SCGI"),
        (b"get / HTTP/1.1\r\n", "small letters"),
        (b"\xff", "0xff"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY"),
    ],
)
def test_what_is_not_spoken_is_refused_by_name(server: Server, data: bytes, word: str) -> None:
    server.raw(data)
    wait_until(lambda: word in server.log, f"the log says {word}")


@pytest.mark.parametrize("data", [b"\x00\x05\x00\x00\xff\xff\x00\x00\x00", b"\x00\x00\x00\x00"])
def test_lying_packet_is_refused(server: Server, data: bytes) -> None:
    assert server.raw(data).startswith(b"HTTP/1.1 400 ")


def test_address_takes_http_only_unless_told_otherwise(launch: Callable[..., Server]) -> None:
    """Who may send variables may claim any user."""
    for arguments, taken in (((), "http"), (("--protocol", "fastcgi"), "fastcgi")):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            fd = listening.fileno()
            server = launch("wsgi_odd:app", "--bind", f"fd://{fd}", *arguments, pass_fds=[fd], ready=not arguments)
            for protocol in PROTOCOLS:
                with socket.create_connection(listening.getsockname(), WITHIN) as sock:
                    sock.sendall(request(protocol, "/"))
                    try:
                        data = everything(sock)
                    except ConnectionResetError:
                        data = b""
                assert (b"hello" in data) is (protocol == taken)
        for protocol in set(PROTOCOLS) - {taken}:
            assert f"which this address does not take (--protocol {protocol})" in server.log


def test_forwarded_headers_are_believed_on_a_unix_socket_only(launch: Callable[..., Server]) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = launch(
            "wsgi_odd:app", "--workers", "1", "--bind", f"fd://{listening.fileno()}", pass_fds=[listening.fileno()]
        )
        request = b"GET /environ HTTP/1.0\r\nX-Forwarded-For: 9.9.9.9, 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\r\n"
        with socket.create_connection(listening.getsockname()) as sock:
            sock.sendall(request)
            tcp = ast.literal_eval(everything(sock).partition(b"\r\n\r\n")[2].decode())[1]
            assert tcp["REMOTE_PORT"] == str(sock.getsockname()[1])
        assert tcp["SERVER_PORT"] == str(listening.getsockname()[1])
    unix = ast.literal_eval(server.raw(request).partition(b"\r\n\r\n")[2].decode())[1]
    assert (tcp["REMOTE_ADDR"], tcp["wsgi.url_scheme"]) == ("127.0.0.1", "http")
    assert "HTTPS" not in tcp
    assert (unix["REMOTE_ADDR"], unix["wsgi.url_scheme"], unix["HTTPS"]) == ("203.0.113.7", "https", "on")
    assert unix["SERVER_PORT"] == "443"
