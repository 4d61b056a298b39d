"""Behind the real Apache, in every protocol that it passes on, with one line of configuration for each."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import WITHIN, launching, unused_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("apache")]  # one Apache for all

APACHE = shutil.which("apache2", path="/usr/sbin:/usr/bin")
MODULES = Path("/usr/lib/apache2/modules")
LOADED = ("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_uwsgi", "proxy_fcgi", "proxy_scgi")
ROOT = os.geteuid() == 0
WAYS = {"http": "http", "uwsgi": "uwsgi", "fastcgi": "fcgi", "scgi": "scgi"}

CONFIG = """
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/apache.log
ServerName localhost
{user}
Listen 127.0.0.1:{port}
{modules}
StartServers 1
KeepAliveTimeout 1
ProxyPreserveHost On
AllowEncodedSlashes NoDecode
MergeSlashes Off
{sites}
"""

SITE = """
<VirtualHost *>
    ServerName {name}.test
    ProxyPass /mounted unix:{socket}|{scheme}://{name}-mounted{options}
    ProxyPass / unix:{socket}|{scheme}://{name}/{options}
</VirtualHost>
"""


def config(folder: Path, path: Path, port: int) -> str:
    sites = "".join(
        SITE.format(name=name, scheme=scheme, socket=path, options=" flushpackets=on") for name, scheme in WAYS.items()
    )
    modules = "\n".join(f"LoadModule {each}_module {MODULES}/mod_{each}.so" for each in LOADED)
    user = "User www-data\nGroup www-data" if ROOT else ""
    return CONFIG.format(folder=folder, port=port, modules=modules, user=user, sites=sites)


@pytest.fixture(scope="module")
def apache() -> Iterator[int]:
    """Its port. It runs as another user, and is let in by its group, as it is on Debian."""
    if APACHE is None or not MODULES.is_dir():
        pytest.skip("there is no apache2 here (`make packages` as root installs Debian's)")
    with tempfile.TemporaryDirectory(prefix="w-") as name:
        folder = Path(name)
        if ROOT:
            shutil.chown(folder, group="www-data")
            folder.chmod(0o2750)  # the socket gets the directory's group
        with launching(folder) as launch:
            server = launch("wsgi_odd:app", "--workers", "1", "--threads", "4", "--socket-mode", "660")
            port = unused_port()
            (folder / "apache.conf").write_text(config(folder, server.path, port))
            argv = [APACHE, "-f", str(folder / "apache.conf"), "-DFOREGROUND"]
            with (folder / "apache.err").open("wb") as errors:
                process = subprocess.Popen(argv, stderr=errors, stdout=errors)
            try:
                wait_until(lambda: listens(port, process, folder), "Apache listens")
                yield port
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(WITHIN)


def listens(port: int, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "apache.err").read_text()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Client:
    """One client that keeps its connection, and asks for what is passed on in one of the protocols."""

    def __init__(self, port: int, way: str) -> None:
        self.way = way
        self.connection = HTTPConnection("127.0.0.1", port, timeout=WITHIN)

    def begin(
        self, path: str, method: str = "GET", body: object = None, headers: dict[str, str] | None = None
    ) -> HTTPResponse:
        """A request, and the head of its answer."""
        headers = {"Host": f"{self.way}.test", **(headers or {})}
        chunked = headers.get("Transfer-Encoding") == "chunked"
        self.connection.request(method, path, body, headers, encode_chunked=chunked)  # type: ignore[arg-type]
        return self.connection.getresponse()

    def ask(self, path: str, method: str = "GET", body: object = None) -> tuple[int, bytes]:
        with self.begin(path, method, body) as response:  # closed, though it may break off
            return response.status, response.read()

    def environ(self, path: str, headers: dict[str, str] | None = None) -> dict[str, str]:
        response = self.begin(path, headers=headers)
        environ: dict[str, str] = ast.literal_eval(response.read().decode())[1]
        return environ


@pytest.fixture(params=WAYS)
def client(request: pytest.FixtureRequest, apache: int) -> Iterator[Client]:
    found = Client(apache, request.param)
    yield found
    found.connection.close()


def test_environ(client: Client) -> None:
    forged = {"X-Forwarded-For": "6.6.6.6", "Proxy": "evil", "Content-Type": "text/x"}
    environ = client.environ("/environ/%C3%A4;b//c?q=%41", forged)
    assert environ["PATH_INFO"] == "/environ/Ã¤;b//c"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["REQUEST_URI"] == "/environ/%C3%A4;b//c?q=%41"
    assert environ["QUERY_STRING"] == "q=%41"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["HTTP_HOST"] == environ["SERVER_NAME"] == f"{client.way}.test"
    assert environ["CONTENT_TYPE"] == "text/x"
    assert "HTTP_PROXY" not in environ


@pytest.mark.parametrize("path", ["/environ", "/environ/", "/environ/a/b"])
def test_mounted_app_is_told_where(client: Client, path: str) -> None:
    """HTTP has no word for it."""
    environ = client.environ(f"/mounted{path}")
    mount = "" if client.way == "http" else "/mounted"
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (mount, path)


def test_many_requests_on_one_connection(client: Client) -> None:
    for _ in range(10):
        assert client.ask("/") == (200, b"hello\n")
        assert client.ask("/echo", "POST", b"x" * 5000) == (200, b"x" * 5000)
        assert client.ask("/", "HEAD") == (200, b"")
        assert client.ask("/unread", "POST", b"x" * 100_000) == (403, b"not read")


def test_errors_of_the_app_are_the_clients_to_see(client: Client) -> None:
    assert client.ask("/raise") == (500, b"Internal Server Error\n")
    assert client.ask("/status?404+Not+Found") == (404, b"body")
    assert client.ask("/") == (200, b"hello\n")


def test_redirect(client: Client) -> None:
    for to in ("/there?x=1", "https://example.org/there"):
        response = client.begin(f"/redirect?{to}")
        assert (response.status, response.getheader("Location"), response.read()) == (303, to, b"see there")


def test_answers_without_a_body(client: Client) -> None:
    for status, method in ((304, "GET"), (204, "GET"), (304, "HEAD")):
        assert client.ask(f"/empty?{status}", method) == (status, b"")
        assert client.ask("/") == (200, b"hello\n")


def test_several_cookies_stay_several(client: Client) -> None:
    response = client.begin("/cookies")
    assert response.read() == b""
    assert response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]


def test_large_bodies_both_ways(client: Client) -> None:
    status, said = client.ask("/size", "POST", b"x" * 20_000_000)
    assert (status, said.split()[0]) == (200, b"20000000")
    data = b"0123456789" * 300_000
    assert client.ask("/echo", "POST", data) == (200, data)
    assert client.ask("/file") == (200, (b"0123456789" * 100_000)[5:])


def test_chunked_upload(client: Client) -> None:
    """Over uwsgi and SCGI, whose requests tell their length first, Apache itself wants to be told."""
    response = client.begin("/echo", "POST", iter([b"abc", b"def"]), {"Transfer-Encoding": "chunked"})
    status, body = response.status, response.read()
    if client.way in {"uwsgi", "scgi"}:
        assert status == 411
    else:
        assert (status, body) == (200, b"abcdef")


def test_streaming(client: Client, folder: Path) -> None:
    folder.chmod(0o755)
    response = client.begin(f"/stream?{folder}/gate")
    assert response.readline() == b"first\n"
    (folder / "gate").touch()
    assert response.readline() == b"last\n"
    assert response.read() == b""


def test_answer_that_breaks_off_is_broken_at_the_client_too(client: Client) -> None:
    """Or it is Apache's own 503, where the end came before Apache had passed on the head (1 of 40 on a busy machine).

    Over SCGI Apache passes on no Content-Length, and takes the end of the connection for that of the answer.
    """
    try:  # `close`: Apache would wait for the next request before it ends what it has announced to be longer
        with client.begin("/broken?length", headers={"Connection": "close"}) as response:
            answer = response.status, response.read()
    except (HTTPException, ConnectionResetError):
        assert client.way != "scgi"
    else:
        assert answer == (200, b"some output") if client.way == "scgi" else answer[0] == 503
