"""Asked by programs that others wrote: curl on the unix socket, and uWSGI's HTTP router, which speaks uwsgi to it."""

from __future__ import annotations

import ast
import contextlib
import shutil
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import WITHIN, Server, unused_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e

CURL = shutil.which("curl")
DATA = b"0123456789" * 300_000


@pytest.fixture
def curl(server: Server) -> Callable[..., bytes]:
    """What curl prints."""
    if CURL is None:
        pytest.skip("there is no curl here")

    def run(*arguments: str, data: bytes = b"") -> bytes:
        argv = [CURL, "-sS", "--max-time", str(WITHIN), "--unix-socket", str(server.path), *arguments]
        done = subprocess.run(argv, input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_curl_asks_uploads_and_downloads(curl: Callable[..., bytes]) -> None:
    assert curl("http://shop.test/") == b"hello\n"
    assert curl("--http1.0", "http://shop.test/") == b"hello\n"
    environ = ast.literal_eval(curl("http://shop.test:81/environ/%C3%A4//b;c?q=%41").decode())[1]
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/environ/Ã¤//b;c", "q=%41")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("shop.test", "81", "127.0.0.1")
    for how in (["--data-binary", "@-"], ["-T", "-"], ["--http1.0", "--data-binary", "@-"]):
        assert curl(*how, "http://a/echo", data=DATA) == DATA, how  # with Expect: 100-continue, in chunks, with neither
    assert curl("http://a/file") == (b"0123456789" * 100_000)[5:]


def test_curl_keeps_its_connection(curl: Callable[..., bytes]) -> None:
    said = curl("-v", "--stderr", "-", "http://a/", "-I", "http://a/", "http://a/empty?204", "http://a/unread")
    assert b"Re-using existing connection" in said
    assert said.count(b"Connected to a") == 1


@pytest.fixture
def routed(server: Server, folder: Path) -> Iterator[HTTPConnection]:
    """A client of uWSGI's router."""
    uwsgi, port = Path(sys.executable).with_name("uwsgi"), unused_port()
    if not uwsgi.exists():
        pytest.skip("there is no uWSGI beside this Python")
    argv = [str(uwsgi), "--http", f"127.0.0.1:{port}", "--http-to", str(server.path), "--http-processes", "1"]
    with (folder / "uwsgi.log").open("wb") as log:
        process = subprocess.Popen([*argv, "--master", "--die-on-term"], stdout=log, stderr=log)
    connection = HTTPConnection("127.0.0.1", port, timeout=WITHIN)

    def answers() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            connection.connect()
            return True
        return False

    try:
        wait_until(answers, "the router listens")
        yield connection
    finally:
        connection.close()
        process.send_signal(signal.SIGTERM)
        process.wait(WITHIN)


def test_uwsgi_client_asks_uploads_and_downloads(routed: HTTPConnection) -> None:
    def ask(path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        routed.request(method, path, body)
        response = routed.getresponse()
        found = response.status, response.read()
        routed.close()  # so does the router
        return found

    environ = ast.literal_eval(ask("/environ/%C3%A4//b;c?q=%41")[1].decode())[1]
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/environ/Ã¤//b;c", "q=%41")
    assert environ["REQUEST_URI"] == "/environ/%C3%A4//b;c?q=%41"
    assert environ["SERVER_PORT"] == str(routed.port)
    assert ask("/echo", "POST", DATA) == (200, DATA)
    assert ask("/unread", "POST", b"x" * 1000) == (403, b"not read")
    assert ask("/file") == (200, (b"0123456789" * 100_000)[5:])
    assert ask("/", "HEAD") == (200, b"")
    assert ask("/raise") == (500, b"Internal Server Error\n")
