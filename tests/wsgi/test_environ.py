from __future__ import annotations

from typing import Any

import pytest

from stack.wsgi.environ import Origin, of_http, of_variables, request_line
from stack.wsgi.http import head
from stack.wsgi.protocol import ProtocolError

UNIX = Origin(trusted=True)
TCP = Origin(trusted=False, name="192.0.2.1", port="8000")


def http(lines: str, origin: Origin = UNIX, peer: tuple[str, str] | None = None) -> dict[str, Any]:
    found = head((lines.replace("\n", "\r\n") + "\r\n\r\n").encode("latin-1"))
    assert found is not None
    return of_http(found, origin, peer)


def uwsgi(**variables: str) -> dict[str, Any]:
    return of_variables({"REQUEST_METHOD": "GET", **variables}, UNIX)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/%C3%A4", "/Ã¤"),
        ("/a%2Fb", "/a/b"),
        ("/%00", "/\0"),
        ("/a;b", "/a;b"),
        ("//a", "//a"),
        ("/%zz%", "/%zz%"),
        ("/+", "/+"),
    ],
)
def test_path_is_decoded_to_latin_1(target: str, path: str) -> None:
    environ = http(f"GET {target}?%41 HTTP/1.0")
    assert (environ["PATH_INFO"], environ["REQUEST_URI"], environ["QUERY_STRING"]) == (path, f"{target}?%41", "%41")
    assert uwsgi(REQUEST_URI=f"{target}?%41")["PATH_INFO"] == path


def test_each_request_has_a_dict_of_its_own() -> None:
    first = http("GET / HTTP/1.0")
    first["x"] = 1
    assert type(first) is dict
    assert "x" not in http("GET / HTTP/1.0")
    assert "x" not in UNIX.base


def test_headers_have_no_twins() -> None:
    environ = http("POST / HTTP/1.0\nContent-Type: a/b\nContent-Length: 0")
    assert environ["CONTENT_TYPE"] == "a/b"
    assert not environ.keys() & {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}


@pytest.mark.parametrize(
    ("told", "address"),
    [("203.0.113.7", "203.0.113.7"), ("1.1.1.1, 203.0.113.7", "203.0.113.7"), ("", "127.0.0.1"), ("a,", "127.0.0.1")],
)
def test_forwarded_for(told: str, address: str) -> None:
    assert http(f"GET / HTTP/1.0\nX-Forwarded-For: {told}")["REMOTE_ADDR"] == address


def test_nothing_is_believed_on_tcp() -> None:
    lines = "GET / HTTP/1.0\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https\nHost: evil:99"
    environ = http(lines, TCP, ("198.51.100.1", "1234"))
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("198.51.100.1", "1234")
    assert environ["wsgi.url_scheme"] == "http"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("192.0.2.1", "8000")


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("a", "a", "80"),
        ("a:81", "a", "81"),
        ("[::1]", "[::1]", "80"),
        ("[::1]:81", "[::1]", "81"),
        ("", "localhost", "80"),
    ],
)
def test_server_name_and_port_from_host_on_a_unix_socket(host: str, name: str, port: str) -> None:
    environ = http(f"GET / HTTP/1.1\nHost: {host}")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)


def apache(uri: str, script: str, asked: str) -> dict[str, str]:
    """What its mod_proxy_fcgi and mod_proxy_scgi tell of a request's path, as it was seen of 2.4.71."""
    return {"REQUEST_URI": uri, "SCRIPT_NAME": script, "SCRIPT_FILENAME": f"proxy:fcgi://localhost{asked}"}


@pytest.mark.parametrize(
    ("variables", "script", "path"),
    [
        ({"REQUEST_URI": "/a//b", "PATH_INFO": "/a/b"}, "", "/a/b"),
        ({"REQUEST_URI": "/a%2Fb"}, "", "/a/b"),
        ({"REQUEST_URI": "/p/a", "SCRIPT_NAME": "/p"}, "/p", "/a"),
        ({"REQUEST_URI": "/p", "SCRIPT_NAME": "/p"}, "/p", ""),
        ({"REQUEST_URI": "/p/a", "PATH_INFO": "/p/a", "SCRIPT_NAME": "/p"}, "/p", "/a"),
        ({"REQUEST_URI": "/p/p/a", "PATH_INFO": "/p/a", "SCRIPT_NAME": "/p"}, "/p", "/p/a"),
        ({"REQUEST_URI": "/pa", "SCRIPT_NAME": "/p"}, "/p", "/pa"),
        ({"REQUEST_URI": "/a", "SCRIPT_NAME": "/"}, "", "/a"),
        ({"PATH_INFO": "/only"}, "", "/only"),
        (apache("/", "/", "/"), "", "/"),
        (apache("/a//b", "/a/b", "/a/b"), "", "/a//b"),
        (apache("/a%20b", "/a b", "/a%20b"), "", "/a b"),
        (apache("/a%2Fb", "/a%2Fb", "/a%2Fb"), "", "/a/b"),
        (apache("/a%2541", "/a%41", "/a%2541"), "", "/a%41"),
        (apache("/p/a/", "/p/a/", "/a/"), "/p", "/a/"),
        (apache("/p/", "/p/", "/"), "/p", "/"),
        (apache("/p", "/p", ""), "/p", ""),
        (apache("/p/p", "/p/p", "/p"), "/p", "/p"),
        (apache("/rewritten", "/other", "/a"), "", "/rewritten"),
        ({**apache("/p/a", "/p", "/a"), "PATH_INFO": "/a"}, "/p", "/a"),
    ],
)
def test_path_over_uwsgi(variables: dict[str, str], script: str, path: str) -> None:
    environ = uwsgi(**variables)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script, path)


@pytest.mark.parametrize(
    ("variables", "scheme"),
    [
        ({"HTTPS": "on"}, "https"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({"HTTPS": ""}, "http"),
        ({"HTTPS": "off"}, "http"),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, "http"),
    ],
)
def test_scheme_over_uwsgi(variables: dict[str, str], scheme: str) -> None:
    assert uwsgi(PATH_INFO="/", **variables)["wsgi.url_scheme"] == scheme


def test_web_servers_own_variables_are_kept() -> None:
    environ = uwsgi(
        PATH_INFO="/", REMOTE_USER="u", DOCUMENT_ROOT="/srv", SERVER_NAME="", HTTP_HOST="h:1", REMOTE_ADDR="::1"
    )
    assert (environ["REMOTE_USER"], environ["DOCUMENT_ROOT"], environ["REMOTE_ADDR"]) == ("u", "/srv", "::1")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("h", "1")


@pytest.mark.parametrize("variables", [{"REQUEST_METHOD": ""}, {}])
def test_packet_that_is_no_request_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(ProtocolError):
        uwsgi(**variables)


def test_request_line_is_the_one_that_was_sent() -> None:
    assert request_line(uwsgi(REQUEST_URI="/a?b", PATH_INFO="/other")) == "GET /a?b"
