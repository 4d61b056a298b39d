from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.wsgi.http import HEAD_LIMIT
from stack.wsgi.protocol import ProtocolError
from stack.wsgi.scgi import variables

from . import wire

CASES = sorted((Path(__file__).resolve().parents[1] / "cases" / "scgi").glob("*.txt"))

names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=20).filter(
    lambda name: not name.startswith(("UWSGI_", "HTTP_")) and name not in {"SCGI", "CONTENT_LENGTH"}
)
values = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=50)


def case(path: Path) -> tuple[list[str], bytes]:
    """What is expected, and the request: see tests/cases/README.md."""
    expected, _, request = path.read_bytes().decode("latin-1").partition("\n---\n")
    data = request.replace("\n", "").encode("latin-1").decode("unicode_escape").encode("latin-1")
    return expected.splitlines(), data


def events(pieces: list[bytes]) -> list[str]:
    """The variables and what follows them; or how it ends."""
    buffer = b""
    try:
        for piece in pieces:
            buffer += piece
            found = variables(buffer)
            if found is not None:
                rest = b"".join(pieces)[found[1] :]
                return [*(f"{name}: {value}" for name, value in found[0].items()), f"body: {rest.decode('latin-1')}"]
    except ProtocolError as error:
        return [f"status: {error.status}"]
    return ["incomplete"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    expected, data = case(path)
    assert events([data]) == expected


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_split_changes_nothing(path: Path) -> None:
    data = case(path)[1]
    whole = events([data])
    for at in range(1, len(data)):
        assert events([data[:at], data[at:]]) == whole, data[:at]
    assert events([data[at : at + 1] for at in range(len(data))]) == whole


@given(st.dictionaries(names, values, max_size=20), st.binary(max_size=20))
def test_packet_comes_back(given: dict[str, str], body: bytes) -> None:
    data = wire.scgi(given, body)
    assert variables(data) == ({"CONTENT_LENGTH": str(len(body)), "SCGI": "1", **given}, len(data) - len(body))


def test_largest_head_passes_and_a_larger_one_is_431() -> None:
    size = HEAD_LIMIT - len("CONTENT_LENGTH\x000\0SCGI\x001\0HTTP_COOKIE\0\0")
    assert variables(wire.scgi({"HTTP_COOKIE": "x" * size})) is not None
    with pytest.raises(ProtocolError, match="a head over 65536 bytes") as caught:
        variables(wire.scgi({"HTTP_COOKIE": "x" * (size + 1)})[:6])
    assert caught.value.status == 431


noise = st.binary(max_size=60)


@given(noise)
def test_noise_raises_nothing_but_protocol_errors_however_it_is_split(data: bytes) -> None:
    for wrapped in (data, b"%d:%b," % (len(data), data), wire.scgi({})[:-1] + data):
        whole = events([wrapped])
        assert events([wrapped[at : at + 1] for at in range(len(wrapped))] or [b""]) == whole
