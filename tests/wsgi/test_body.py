from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.wsgi.body import Body, BodyCut, BodyTooLarge, ChunkedBody, LengthBody

if TYPE_CHECKING:
    from collections.abc import Callable


class Wire:
    """Gives the pieces one by one, and no more than is asked for."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def __call__(self, size: int) -> bytes:
        if not self.pieces:
            return b""
        data = self.pieces.pop(0)
        if len(data) > size:
            self.pieces.insert(0, data[size:])
        return data[:size]


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces if each) + b"0\r\n\r\n"


sizes = st.none() | st.integers(-1, 12)
calls = st.lists(st.tuples(st.sampled_from(["read", "readline", "readlines"]), sizes), max_size=12)
pieces = st.lists(st.text("ab\n", max_size=9).map(str.encode), max_size=6)


@given(pieces=pieces, early=st.integers(0, 20), calls=calls, chunked=st.booleans())
def test_reads_as_a_file_does(
    pieces: list[bytes], early: int, calls: list[tuple[str, int | None]], *, chunked: bool
) -> None:
    """Whatever is called, in whatever pieces the body comes: the same as of io.BytesIO."""
    whole = b"".join(pieces)
    body: Body
    if chunked:
        wire = chunks(*pieces)
        body = ChunkedBody(wire[:early], Wire(*(wire[at : at + 3] for at in range(early, len(wire), 3))))
    else:
        rest = whole[early:]
        body = LengthBody(
            len(whole), whole[:early], Wire(*(rest[at : at + 3] for at in range(0, len(rest), 3)), b"NEXT")
        )
    file = io.BytesIO(whole)
    for name, size in calls:
        assert getattr(body, name)(size) == getattr(file, name)(size)
    assert list(body) == list(file)
    assert body.read() == body.read(1) == body.readline() == b""
    assert body.unread == 0


def test_iterates_lines() -> None:
    assert list(LengthBody(5, b"a\nb\nc", Wire())) == [b"a\n", b"b\n", b"c"]


def test_never_reads_past_the_request() -> None:
    wire = Wire(b"cdeGET /next")
    body = LengthBody(5, b"ab", wire)
    assert body.read() == b"abcde"
    assert wire.pieces == [b"GET /next"]


def test_what_came_with_the_head_is_left_over() -> None:
    assert LengthBody(2, b"abGET", Wire()).leftover() == b"GET"
    body = ChunkedBody(chunks(b"ab") + b"GET", Wire())
    assert body.leftover() == b""
    assert body.read() == b"ab"
    assert body.leftover() == b"GET"


@pytest.mark.parametrize("read", [Body.read, lambda body: body.read(9), list])
@pytest.mark.parametrize(
    "body",
    [
        lambda: LengthBody(9, b"a", Wire(b"b")),
        lambda: ChunkedBody(b"9\r\na", Wire(b"b")),
        lambda: ChunkedBody(b"nonsense\r\n", Wire()),
    ],
)
def test_body_that_stops_short_raises(body: Callable[[], Body], read: Callable[[Body], object]) -> None:
    with pytest.raises(BodyCut):
        read(body())


def test_discard_reads_up_to_a_limit() -> None:
    assert LengthBody(9, b"abc", Wire(b"defghi")).discard(100)
    assert not LengthBody(200_000, b"", Wire(*[b"x" * 50_000] * 4)).discard(60_000)
    assert not LengthBody(9, b"abc", Wire()).discard(100)
    assert ChunkedBody(chunks(b"abc"), Wire()).discard(100)
    assert Body().discard(0)


@pytest.mark.parametrize("read", [Body.read, lambda body: [body.read(2) for _ in range(9)], list, Body.readline])
def test_chunked_body_over_its_limit_raises_and_goes_on_to(read: Callable[[Body], object]) -> None:
    body = ChunkedBody(chunks(b"abc", b"def"), Wire(), 5)
    for _ in range(2):
        with pytest.raises(BodyTooLarge):
            read(body)
    assert body.exceeded
    assert not body.discard(100)


def test_chunked_body_of_its_limit_is_whole() -> None:
    body = ChunkedBody(chunks(b"abc", b"de"), Wire(), 5)
    assert body.read() == b"abcde"
    assert not body.exceeded


def test_discard_goes_on_where_nothing_had_arrived() -> None:
    pieces = [b"de", b"", b"f"]

    def receive(_: int) -> bytes:
        data = pieces.pop(0)
        if not data:
            raise BlockingIOError
        return data

    body = LengthBody(6, b"abc", receive)
    with pytest.raises(BlockingIOError):
        body.discard(100)
    assert body.discard(100)
    assert not pieces
