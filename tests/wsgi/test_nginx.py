"""Behind the real nginx, in every protocol that it passes on."""

from __future__ import annotations

import ast
import itertools
import shutil
import socket
import subprocess
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from typing import TYPE_CHECKING

import pytest

from .conftest import WITHIN, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

CONFIG = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log info;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    uwsgi_temp_path {folder}/uwsgi;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 100m;
    large_client_header_buffers 8 32k;
    upstream http_app {{ server unix:{socket}; keepalive 8; keepalive_timeout 2s; }}
    upstream fastcgi_app {{ server unix:{socket}; keepalive 8; keepalive_timeout 2s; }}
    types {{ text/css css; }}
    default_type application/octet-stream;
    server {{
        listen unix:{folder}/http.sock;
        location ^~ /static/ {{ alias {folder}/static/; }}
        location / {{
            proxy_pass http://http_app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For 203.0.113.9;
            proxy_set_header X-Forwarded-Proto https;
            proxy_buffering {buffering};
        }}
    }}
    {passing}
}}
"""

PASSING = """
    server {{
        listen unix:{folder}/{name}.sock;
        location / {{
            {module}_pass {target};
            {module}_buffering {buffering};
            {extra}
            {module}_param QUERY_STRING $query_string;
            {module}_param REQUEST_METHOD $request_method;
            {module}_param CONTENT_TYPE $content_type;
            {module}_param REQUEST_URI $request_uri;
            {module}_param PATH_INFO $document_uri;
            {module}_param DOCUMENT_ROOT $document_root;
            {module}_param SERVER_PROTOCOL $server_protocol;
            {module}_param REQUEST_SCHEME https;
            {module}_param REMOTE_ADDR 203.0.113.9;
            {module}_param REMOTE_PORT 1234;
            {module}_param SERVER_PORT 443;
            {module}_param SERVER_NAME example.org;
        }}
    }}
"""

# By name: the module, and what the others do without. FastCGI is passed on to be kept by the application, to be kept by
# both, and to be closed.
WAYS = {
    "uwsgi": ("uwsgi", "uwsgi_param CONTENT_LENGTH $content_length;"),
    "fastcgi": ("fastcgi", "fastcgi_param CONTENT_LENGTH $content_length; fastcgi_keep_conn on;"),
    "fastcgi-kept": ("fastcgi", "fastcgi_param CONTENT_LENGTH $content_length; fastcgi_keep_conn on;"),
    "fastcgi-closed": ("fastcgi", "fastcgi_param CONTENT_LENGTH $content_length;"),
    "scgi": ("scgi", "scgi_param SCGI 1;"),
}


def config(folder: Path, path: Path, user: str, buffering: str) -> str:
    """All ways to the server at this path."""
    passing = "".join(
        PASSING.format(
            folder=folder,
            name=name,
            module=module,
            extra=extra,
            buffering=buffering,
            target="fastcgi_app" if name == "fastcgi-kept" else f"unix:{path}",
        )
        for name, (module, extra) in WAYS.items()
    )
    return CONFIG.format(folder=folder, socket=path, user=user, buffering=buffering, passing=passing)


class Client(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("example.org", timeout=WITHIN)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WITHIN)
        self.sock.connect(str(self.path))


@pytest.fixture
def front(server: Server, folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """nginx, with one socket for each way, in front of the server. The parameter is whether it buffers."""
    if NGINX is None:
        pytest.skip("there is no nginx here")
    import os

    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(config(folder, server.path, user, getattr(request, "param", "off")))
    argv = [NGINX, "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(folder / "nginx.conf")]
    with (folder / "nginx.err").open("wb") as errors:
        process = subprocess.Popen(argv, stderr=errors)
    try:
        wait_until((folder / "uwsgi.sock").exists, "nginx listens")
        wait_until((folder / "nginx.pid").exists, "nginx runs")
        yield folder
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=["http", *WAYS])
def client(request: pytest.FixtureRequest, front: Path) -> Iterator[Client]:
    found = Client(front / f"{request.param}.sock")
    yield found
    found.close()


def ask(client: Client, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body)
    response = client.getresponse()
    return response.status, response.read()


def test_environ(client: Client) -> None:
    status, body = ask(client, "/environ/%C3%A4%20b?q=%41")
    assert status == 200
    environ = ast.literal_eval(body.decode())[1]
    assert environ["PATH_INFO"] == "/environ/Ã¤ b"
    assert environ["REQUEST_URI"] == "/environ/%C3%A4%20b?q=%41"
    assert environ["QUERY_STRING"] == "q=%41"
    assert environ["REMOTE_ADDR"] == "203.0.113.9"
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["HTTPS"] == "on"
    assert environ["HTTP_HOST"] == "example.org"
    assert environ["SERVER_NAME"] == "example.org"
    assert environ["SERVER_PORT"] == "443"
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_many_requests_on_one_connection(client: Client) -> None:
    for _ in range(30):
        assert ask(client, "/") == (200, b"hello\n")
        assert ask(client, "/echo", "POST", b"x" * 5000) == (200, b"x" * 5000)
        assert ask(client, "/", "HEAD") == (200, b"")
        assert ask(client, "/raise")[0] == 500
        assert ask(client, "/unread", "POST", b"x" * 100_000) == (403, b"not read")


def test_large_bodies_both_ways(client: Client) -> None:
    status, said = ask(client, "/size", "POST", b"x" * 20_000_000)
    assert (status, said.split()[0]) == (200, b"20000000")
    data = b"0123456789" * 300_000
    assert ask(client, "/echo", "POST", data) == (200, data)
    assert ask(client, "/unread", "POST", data) == (403, b"not read")
    assert ask(client, "/file") == (200, (b"0123456789" * 100_000)[5:])


def test_streaming(client: Client, folder: Path) -> None:
    client.request("GET", f"/stream?{folder}/gate")
    response = client.getresponse()
    assert response.readline() == b"first\n"
    (folder / "gate").touch()
    assert response.readline() == b"last\n"
    assert response.read() == b""


def test_chunked_upload(client: Client) -> None:
    client.request(
        "POST", "/echo", iter([b"abc", b"def"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert client.getresponse().read() == b"abcdef"


@pytest.mark.parametrize(
    ("protocol", "path"),
    [
        ("http", "/broken"),
        ("http", "/broken?length"),
        ("uwsgi", "/broken?length"),
        ("scgi", "/broken?length"),
        *itertools.product(("fastcgi", "fastcgi-kept", "fastcgi-closed"), ("/broken", "/broken?length")),
    ],
)
@pytest.mark.parametrize("front", ["off", "on"], indirect=True)
def test_answer_that_breaks_off_is_broken_at_the_client_too(front: Path, protocol: str, path: str) -> None:
    client = Client(front / f"{protocol}.sock")
    client.request("GET", path)
    with pytest.raises((IncompleteRead, ConnectionResetError, RemoteDisconnected)), client.getresponse() as response:
        response.read()
    client.close()


@pytest.mark.parametrize("protocol", ["uwsgi", "scgi"])
def test_answer_without_length_that_breaks_off_looks_whole(front: Path, protocol: str) -> None:
    """No more than this can be said: these protocols have no framing, and nginx takes the end for the end."""
    client = Client(front / f"{protocol}.sock")
    assert ask(client, "/broken") == (200, b"some output")
    client.close()


@pytest.mark.parametrize(
    ("name", "says"), [("uwsgi", "uwsgi request is too"), ("fastcgi", "fastcgi request record is too")]
)
def test_more_variables_than_a_packet_holds_are_refused_by_nginx(front: Path, name: str, says: str) -> None:
    client = Client(front / f"{name}.sock")
    client.request("GET", "/", headers={f"X-{each}": "x" * 30_000 for each in range(3)})
    response = client.getresponse()
    response.read()
    assert response.status == 500
    wait_until(lambda: says in (front / "nginx.log").read_text(), "nginx says so")
    client.close()


def test_more_variables_than_are_taken_are_told_to_the_client_over_scgi(front: Path) -> None:
    """nginx has no limit of its own there."""
    client = Client(front / "scgi.sock")
    client.request("GET", "/", headers={f"X-{each}": "x" * 30_000 for each in range(3)})
    response = client.getresponse()
    assert (response.status, response.read()) == (431, b"a head over 65536 bytes (--max-head)\n")
    client.close()


def test_large_head_passes_in_every_protocol(client: Client) -> None:
    """As large as stackctl lets nginx take one, with its four lines."""
    lines = {f"X-{each}": "x" * 11_000 for each in range(4)}
    client.request("GET", "/environ", headers=lines)
    environ = ast.literal_eval(client.getresponse().read().decode())[1]
    assert all(environ[f"HTTP_X_{each}"] == "x" * 11_000 for each in range(4))


def test_answers_without_a_body(client: Client) -> None:
    for status, method in ((304, "GET"), (204, "GET"), (304, "HEAD")):
        assert ask(client, f"/empty?{status}", method) == (status, b"")
        assert ask(client, "/") == (200, b"hello\n")


def test_no_request_fails_when_the_server_is_replaced(
    front: Path, server: Server, launch: Callable[..., Server]
) -> None:
    """A successor takes the path over, and the old server drains while requests go on."""
    ways = ["http", *WAYS]
    ways.remove("fastcgi-kept")  # which cannot be told to close: see docs/server.md
    clients = [Client(front / f"{name}.sock") for name in ways]
    for round_ in range(40):
        if round_ == 20:
            successor = launch("wsgi_odd:app", "--workers", "1")
            successor.path.rename(server.path)
            server.process.terminate()
        for client in clients:
            assert ask(client, "/echo", "POST", b"x") == (200, b"x")
    assert server.process.wait(WITHIN) == 0
    for client in clients:
        assert ask(client, "/") == (200, b"hello\n")
        client.close()


CONDITIONS: tuple[dict[str, str], ...] = (
    {},
    {"If-None-Match": "ETag"},
    {"If-Modified-Since": "Last-Modified"},
    {"If-Match": '"x"'},
    {"Range": "bytes=3-5"},
    {"Range": "bytes=-5", "If-Range": "ETag"},
    {"Range": "bytes=99-"},
)


@pytest.mark.parametrize("name", ["a.css", "missing", "a.css%00", "sub//b"])
def test_static_files_as_nginx_serves_them(front: Path, launch: Callable[..., Server], folder: Path, name: str) -> None:
    (folder / "static" / "sub").mkdir(parents=True)
    for each in ("a.css", "sub/b"):
        (folder / "static" / each).write_bytes(b"0123456789")
    bundled = launch("wsgi_odd:app", "--static", f"/static={folder}/static")
    for headers in CONDITIONS:
        agree_on(name, headers, front, bundled)


def agree_on(name: str, headers: dict[str, str], front: Path, bundled: Server) -> None:
    said: list[tuple[int, dict[str, str | None], bytes]] = []
    for client in (Client(front / "http.sock"), bundled.client()):
        client.request("HEAD", "/static/a.css")
        known = client.getresponse()
        known.read()
        client.request("GET", f"/static/{name}", headers={k: known.getheader(v) or v for k, v in headers.items()})
        response = client.getresponse()
        shown = {
            each: response.getheader(each)
            for each in ("ETag", "Last-Modified", "Content-Type", "Content-Range", "Accept-Ranges", "Content-Length")
        }
        said.append((response.status, shown, response.read()))
        client.close()
    if said[0][0] < 400:
        assert said[0] == said[1], headers
    else:
        # The pages differ; and nginx calls a path with NUL a bad request.
        assert said[1][0] == (404 if said[0][0] == 400 else said[0][0]), headers
