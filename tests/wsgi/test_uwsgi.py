from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.wsgi.protocol import ProtocolError
from stack.wsgi.uwsgi import variables
from stack.wsgi.variables import length

from .conftest import packet

names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=20).filter(
    lambda name: not name.startswith(("UWSGI_", "HTTP_"))
)


@given(st.dictionaries(names, st.text(st.characters(max_codepoint=255), max_size=50), max_size=20))
def test_packet_comes_back(given: dict[str, str]) -> None:
    data = packet(given)
    assert variables(data + b"body") == (given, len(data))


def test_every_beginning_of_a_packet_is_incomplete() -> None:
    data = packet({"REQUEST_METHOD": "GET", "HTTP_X": "1"})
    assert all(variables(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize(
    "name",
    ["UWSGI_FILE", "UWSGI_APPID", "wsgi.input", "wsgi.url_scheme", "werkzeug.request", "HTTP_PROXY",
     "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "lower", ""],
)  # fmt: skip
def test_variable_is_dropped(name: str) -> None:
    found = variables(packet({name: "x", "REQUEST_METHOD": "GET"}))
    assert found is not None
    assert found[0] == {"REQUEST_METHOD": "GET"}


def test_repeated_headers_are_joined() -> None:
    both = packet({"HTTP_A": "1", "HTTP_COOKIE": "a"})[4:] + packet({"HTTP_A": "2", "HTTP_COOKIE": "b"})[4:]
    found = variables(b"\0" + len(both).to_bytes(2, "little") + b"\0" + both)
    assert found is not None
    assert found[0] == {"HTTP_A": "1,2", "HTTP_COOKIE": "a; b"}


def test_largest_packet_passes() -> None:
    found = variables(packet({"HTTP_COOKIE": "x" * (65535 - 4 - 11)}))
    assert found is not None
    assert found[1] == 4 + 65535


@pytest.mark.parametrize("data", [b"\x05\x00\x00\x00", b"\x01", b"G"])
def test_other_modifiers_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="modifier1"):
        variables(data)


@pytest.mark.parametrize("inner", [b"\xff\xff", b"\x01", b"\x01\x00A", b"\x01\x00A\x05\x00abc", b"\x01\x00A\x05"])
def test_lying_size_is_refused(inner: bytes) -> None:
    data = b"\0" + len(inner).to_bytes(2, "little") + b"\0" + inner
    for follows in (b"", b"x" * 70000):
        with pytest.raises(ProtocolError, match="beyond its packet"):
            variables(data + follows)


@given(st.binary(max_size=100))
def test_noise_raises_nothing_but_protocol_errors(noise: bytes) -> None:
    try:
        variables(b"\0" + len(noise).to_bytes(2, "little") + b"\0" + noise)
    except ProtocolError as error:
        assert error.status == 400  # noqa: PT017 - both ends are right


@pytest.mark.parametrize(("text", "size"), [(None, None), ("", None), ("0", 0), ("12", 12)])
def test_length(text: str | None, size: int | None) -> None:
    assert length({} if text is None else {"CONTENT_LENGTH": text}) == size


@pytest.mark.parametrize("text", ["-1", "+1", "1 ", "1_0", "x", "²"])
def test_malformed_length_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        length({"CONTENT_LENGTH": text})
