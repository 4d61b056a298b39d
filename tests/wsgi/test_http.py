from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.wsgi import http
from stack.wsgi.http import HEAD_LIMIT, Chunked, Head, head
from stack.wsgi.protocol import ProtocolError

CASES = sorted((Path(__file__).resolve().parents[1] / "cases" / "http").glob("*.txt"))


def case(path: Path) -> tuple[list[str], bytes]:
    """What is expected, and the request."""
    expected, _, request = path.read_bytes().decode("latin-1").partition("\n---\n")
    data = request.replace("\n", "\r\n").encode("latin-1").decode("unicode_escape").encode("latin-1")
    return expected.splitlines(), data


def events(pieces: list[bytes]) -> tuple[Head | None, bytes, str]:
    """Head, body, and how it ended: complete, incomplete, or the status of a refusal."""
    found: Head | None = None
    body = b""
    chunked = Chunked()
    buffer = b""
    try:
        for piece in pieces:
            buffer += piece
            if found is None:
                found = head(buffer)
                if found is None:
                    continue
                buffer = buffer[found.size :]
            if found.length is not None:
                if len(buffer) >= found.length:
                    return found, buffer[: found.length], "complete"
                continue
            chunked.receive(buffer)
            buffer = b""
            while data := chunked.piece():
                body += data
            if chunked.done:
                return found, body, "complete"
    except ProtocolError as error:
        return None, b"", str(error.status)
    return None, b"", "incomplete"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    expected, data = case(path)
    found, body, end = events([data])
    if expected == ["incomplete"]:
        assert end == "incomplete"
    elif expected[0].startswith("status: "):
        assert end == expected[0].partition(": ")[2]
    else:
        assert end == "complete"
        assert found is not None
        for line in expected:
            name, _, value = line.partition(": ")
            if name == "body":
                assert body.decode("latin-1") == value
            elif name.isupper():
                assert str(found.fields.get(name)) == value
            else:
                assert str(getattr(found, name.rstrip(":"))) == value


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_split_changes_nothing(path: Path) -> None:
    data = case(path)[1]
    whole = events([data])
    for at in range(1, len(data)):
        assert events([data[:at], data[at:]]) == whole, data[:at]
    assert events([data[at : at + 1] for at in range(len(data))]) == whole


def test_what_follows_is_left_alone() -> None:
    found = head(b"GET / HTTP/1.0\r\n\r\nGET /next")
    assert found is not None
    assert found.size == 18
    chunked = Chunked()
    chunked.receive(b"1\r\na\r\n0\r\n\r\nGET /next")
    assert (chunked.piece(), chunked.piece(), chunked.done, chunked.leftover()) == (b"a", b"", True, b"GET /next")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * HEAD_LIMIT, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * HEAD_LIMIT, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: 1\r\n" * HEAD_LIMIT + b"\r\n", 431),
    ],
)
def test_limits(data: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        head(data)
    assert caught.value.status == status


def test_chunks_that_have_arrived_are_one_piece_however_small_they_are() -> None:
    """Each would be a pass through all that has arrived, and a client chooses their size."""
    chunked = Chunked()
    chunked.receive(b"1\r\nx\r\n" * 10_000 + b"2;a=b\r\nyz\r\n3\r\nla")
    assert (chunked.piece(), chunked.piece()) == (b"x" * 10_000 + b"yzla", None)
    chunked.receive(b"s\r")
    assert (chunked.piece(), chunked.piece()) == (b"s", None)


def test_what_comes_before_a_broken_chunk_is_given_first() -> None:
    chunked = Chunked()
    chunked.receive(b"1\r\nx\r\n1\r\ny\r\nz\r\n")
    assert chunked.piece() == b"xy"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            chunked.piece()


def test_chunk_lines_are_limited() -> None:
    chunked = Chunked()
    chunked.receive(b"1;" + b"a" * 2000)
    with pytest.raises(ProtocolError):
        chunked.piece()


noise = st.binary(max_size=200) | st.lists(
    st.sampled_from(
        [b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"]
    )
    | st.binary(max_size=5)
).map(b"".join)


@given(noise)
def test_noise_raises_nothing_but_protocol_errors(data: bytes) -> None:
    events([data])


@given(noise)
def test_noise_in_chunks_raises_nothing_but_protocol_errors(data: bytes) -> None:
    events([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data])


NAMES = st.sampled_from(["Host", "host", "Cookie", "X-A", "X_A", "Proxy", "Content-Length", "No Name", "", "A:b"])
GAPS = st.sampled_from([": ", ":", ":  ", ":\t", " : ", ""])
VALUES = st.text(st.sampled_from("ab: ,\t\r\n\0\x7f\xe9"), max_size=6)


@given(
    st.lists(
        st.builds("{}{}{}".format, NAMES, GAPS, VALUES)
        | st.builds("{}: {}".format, NAMES, st.sampled_from(["", "a", "b b"]))
    ),
    st.sampled_from(["\r\n", "\n", "\r"]),
)
def test_usual_heads_are_read_as_any_head_is(lines: list[str], last: str) -> None:
    block = "\r\n".join(lines) + (last if lines else "")

    def read(by: Callable[[bytes], dict[str, str]]) -> dict[str, str] | None:
        try:
            return by(block.encode("latin-1"))
        except ProtocolError:
            return None

    odd = read(http._odd_fields)  # first: now it knows the names
    assert read(http._fields) == odd
