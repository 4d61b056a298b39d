from __future__ import annotations

import ast
import socket
from typing import TYPE_CHECKING

import pytest

from stack.wsgi.peers import NOBODY, peers

from .conftest import Server, everything, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORWARDED = b"\r\n".join(
    [
        b"GET /environ HTTP/1.0",
        b"Host: shop.test",
        b"X-Forwarded-For: 9.9.9.9, 203.0.113.7",
        b"X-Forwarded-Proto: https",
        b"\r\n",
    ]
)


@pytest.mark.parametrize(
    ("named", "address", "is_among"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("fe80::/10", "fe80::1%lo", True),
        ("::1", "127.0.0.1", False),
        ("unix", "127.0.0.1", False),
    ],
)
def test_peers_are_named_by_address_or_network(named: str, address: str, is_among: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert (address in peers(["192.0.2.1", named])) is is_among
    assert address not in NOBODY


def told(data: bytes) -> dict[str, str]:
    environ: dict[str, str] = ast.literal_eval(data.partition(b"\r\n\r\n")[2].decode())[1]
    return environ


@pytest.mark.e2e
@pytest.mark.parametrize("named", ["127.0.0.0/8", "127.9.9.9"])
def test_forwarded_headers_count_from_named_peers_only(launch: Callable[..., Server], named: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = listening.fileno()
        launch("wsgi_odd:app", "--workers", "1", "--bind", f"fd://{fd}", "--forwarded-from", named, pass_fds=[fd])
        with socket.create_connection(listening.getsockname()) as sock:
            sock.sendall(FORWARDED)
            environ, port = told(everything(sock)), str(sock.getsockname()[1])
            own = str(listening.getsockname()[1])
    shown = [environ.get(each, "") for each in ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "SERVER_NAME")]
    if named == "127.9.9.9":
        assert [*shown, environ["SERVER_PORT"]] == ["127.0.0.1", port, "http", "127.0.0.1", own]
    else:
        assert [*shown, environ["SERVER_PORT"]] == ["203.0.113.7", "", "https", "shop.test", "443"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("mode", "arguments", "is_believed"),
    [(0o666, [], False), (0o660, [], True), (0o666, ["--forwarded-from", "unix"], True)],
)
def test_inherited_unix_socket_is_believed_unless_everybody_may_connect(
    launch: Callable[..., Server],
    folder: Path,
    mode: int,
    arguments: list[str],
    is_believed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A socket unit's default is 0666: another user of the machine could be any client, and over uwsgi any user."""
    path = folder / "inherited.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(mode)
        listening.listen()
        fd = listening.fileno()
        server = launch("wsgi_odd:app", "--workers", "1", "--bind", f"fd://{fd}", *arguments, pass_fds=[fd])
        inherited = Server(server.process, path, server.errors)
        environ = told(inherited.raw(FORWARDED))
        answer = inherited.raw(request("uwsgi", "/"), end=True)
    assert environ["REMOTE_ADDR"] == ("203.0.113.7" if is_believed else "127.0.0.1")
    assert (b"hello" in answer) is is_believed
    assert ("lets everybody on this machine connect" in server.log) is not is_believed
