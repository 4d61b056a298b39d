"""What an app does against PEP 3333 is named in the log, with the request it happened in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Server

pytestmark = pytest.mark.e2e

CASES = {
    "status_type": ("start_response(200, []); return [b'']", 'not a status of the form "200 OK": 200'),
    "status_short": ("start_response('OK', []); return [b'']", "not a status of the form \"200 OK\": 'OK'"),
    "status_1xx": ("start_response('103 Early', []); return [b'']", "not a status of the form \"200 OK\": '103 Early'"),
    "headers_tuple": ("start_response('200 OK', ()); return [b'']", "the headers must be a list, not tuple"),
    "header_value": ("start_response('200 OK', [('X', 1)]); return [b'']", "not a header's value: X: 1"),
    "header_crlf": (
        "start_response('200 OK', [('X', 'a\\r\\nb')]); return [b'']",
        r"not a header's value: X: 'a\r\nb'",
    ),
    "header_name": ("start_response('200 OK', [('X:', 'a')]); return [b'']", "not a header's name: 'X:'"),
    "header_hop": (
        "start_response('200 OK', [('Upgrade', 'a')]); return [b'']",
        "a hop-by-hop header is the server's business (PEP 3333): Upgrade",
    ),
    "header_pair": ("start_response('200 OK', [('X',)]); return [b'']", "not a pair of name and value: ('X',)"),
    "str": ("start_response('200 OK', []); return ['text']", "a piece of it is str"),
    "bytes": ("start_response('200 OK', []); return b'text'", "a piece of it is int"),
    "none": ("start_response('200 OK', []); return None", "the app must return an iterable of bytes, not NoneType"),
    "pieces": ("start_response('200 OK', []); return iter([None])", "a piece of it is NoneType"),
    "write": ("start_response('200 OK', [])('text'); return []", "a piece of it is str"),
    "never": ("return [b'']", "start_response was not called before the body"),
    "generator": ("yield b'early'; start_response('200 OK', [])", "start_response was not called before the body"),
    "twice": (
        "start_response('200 OK', []); start_response('200 OK', []); return []",
        "start_response was called a second time without exc_info",
    ),
}


@pytest.fixture
def violating(launch: Callable[..., Server], folder: Path) -> Server:
    """An app with a path for each case."""
    cases = "\n".join(f"def {name}(environ, start_response): {code}" for name, (code, _) in CASES.items())
    last = "def app(environ, start): return globals()[environ['PATH_INFO'][1:] or 'fine'](environ, start)"
    fine = "def fine(environ, start_response): start_response('200 OK', []); return [b'fine']"
    (folder / "wsgi_violating.py").write_text(f"{cases}\n{fine}\n{last}\n")
    return launch("wsgi_violating:app", "--workers", "1", "--pythonpath", str(folder))


def test_every_violation_is_named_and_is_a_500(violating: Server) -> None:
    for name, (_, words) in CASES.items():
        assert violating.get(f"/{name}")[0].status == 500, name
        found = re.search(rf"GET /{name}: raised \(request \w+\)\n((?!wsgi\[).*\n)*", violating.log)
        assert found, violating.log
        assert words in found[0], name
    assert violating.get("/")[1] == b"fine"
