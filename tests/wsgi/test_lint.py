"""What others wrote to find a server's violations of PEP 3333 finds none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import launching
from .test_answers import PROTOCOLS, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Server

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("lint")]

LINES = b"line\n" * 9
ASKED = {
    "/plain/a": b"hello /plain/a\n",
    "/reads": b"read 45",
    "/valid": b"read " + LINES,
    "/valid?write": b"written read " + LINES,
    "/echo": LINES,
    "/lines": str([b"lin", b"e\n", *[b"line\n"] * 8]).encode(),
    "/unread": b"not read",
    "/write": b"written and returned",
    "/redirect?/there": b"see there",
    "/cookies": b"",
    "/file?20": b"56789012345678901234",
    "/memory": b"0123456789" * 20_000,
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("w")
    with launching(folder) as launch:
        yield launch("wsgi_linted:app", "--workers", "1")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_lint_and_validator_find_nothing(watched: Server, protocol: str, path: str, method: str) -> None:
    before = len(watched.log)
    body = LINES if method == "POST" else b""
    status, _, answer = ask(watched, protocol, path, body, method)
    assert status[0] in "234", watched.log
    if method == "HEAD":
        assert answer == b""
    elif body:
        assert answer == ASKED[path] or (protocol == "http" and path == "/write" and ASKED[path] in answer)
    for word in ("Traceback", "Assertion", "garbage collected", "Exception ignored"):
        assert word not in watched.log[before:]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_they_would_find_something(watched: Server, protocol: str) -> None:
    """The app is watched indeed: its own violation, an answer without a Content-Type, is found."""
    before = watched.log.count("No Content-Type header found")
    assert ask(watched, protocol, "/late")[0].startswith("500")
    assert watched.log.count("No Content-Type header found") > before
