from __future__ import annotations

import gzip
import io
import tempfile
from typing import TYPE_CHECKING

import pytest

from stack.wsgi.gathering import Gathering, Pieces
from stack.wsgi.response import FileWrapper, Response, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path


class Wire:
    """Keeps what is sent, one item for each system call."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.gathered = Pieces(Gathering(), self.send, len)

    def send(self, data: bytes) -> None:
        self.sent.append(self.gathered.take() + data)

    def send_all(self, parts: Sequence[bytes]) -> None:
        self.sent += parts

    def pieces(self, frame: Callable[[bytes], bytes]) -> Pieces:
        self.gathered.frame = frame
        return self.gathered

    def send_file(self, fd: int, offset: int, count: int) -> int:
        raise AssertionError((fd, offset, count))


def answered(
    result: Iterable[bytes], method: str = "GET", minor: int | None = 1, **headers: str
) -> tuple[Wire, Response]:
    wire = Wire()
    response = Response(wire, method, minor, lambda: True)
    response.start("200 OK", list(headers.items()))
    answer(result, response)
    return wire, response


def test_one_chunk_is_one_system_call() -> None:
    wire, response = answered([b"abc"])
    assert len(wire.sent) == 1
    assert b"Content-Length: 3\r\n" in wire.sent[0]
    assert response.whole
    assert response.keep_alive


def test_each_chunk_is_sent_at_once_and_empty_ones_are_not() -> None:
    wire = Wire()
    response = Response(wire, "GET", 1, lambda: True)
    response.start("200 OK", [])
    seen = []

    def chunks() -> Iterator[bytes]:
        for data in (b"", b"a", b"", b"b"):
            yield data
            seen.append(len(wire.sent))

    answer(chunks(), response)
    assert seen == [0, 1, 1, 2]
    assert wire.sent[0].endswith(b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    assert wire.sent[1:] == [b"1\r\nb\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize(("minor", "connection"), [(None, b""), (0, b"close"), (1, b"")])
def test_without_length_or_chunks_the_end_is_the_end(minor: int | None, connection: bytes) -> None:
    wire, response = answered(iter([b"a", b"b"]), minor=minor)
    assert response.framed is (minor == 1)
    assert response.keep_alive is (minor == 1)
    assert (b"Connection: " + connection in wire.sent[0]) is bool(connection)


def test_large_chunks_are_not_copied() -> None:
    data = b"x" * 100_000
    wire, _ = answered([data])
    assert wire.sent[1] is data


def test_only_plain_files_are_sent_by_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(gzip.compress(b"abcdef"))
    with (
        gzip.open(tmp_path / "file") as packed,
        (tmp_path / "file").open("rb") as plain,
        tempfile.TemporaryFile() as made,
    ):
        assert FileWrapper(packed).region() is None
        assert FileWrapper(io.BytesIO(b"abc")).region() is None
        plain.read(4)
        region = FileWrapper(plain).region()
        assert region is not None
        assert region[1] == 4
        assert FileWrapper(made).region() is not None
        wire, _ = answered(FileWrapper(packed))
        assert b"abcdef" in wire.sent[0]


def test_status_of_204_has_no_length() -> None:
    wire = Wire()
    response = Response(wire, "GET", 1, lambda: True)
    response.start("204 No Content", [("Content-Length", "0")])
    answer([], response)
    assert b"Content-Length" not in wire.sent[0]
    assert response.keep_alive


def test_head_without_a_body_does_not_invent_a_length() -> None:
    assert b"Content-Length" not in answered([], "HEAD")[0].sent[0]
    assert b"Content-Length: 3\r\n" in answered([b"abc"], "HEAD")[0].sent[0]
    assert b"Content-Length: 0\r\n" in answered([])[0].sent[0]


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
@pytest.mark.parametrize("headers", [[], [("Content-Length", "6")]])
def test_of_a_body_that_nobody_gets_the_app_makes_no_more(
    method: str, status: str, headers: list[tuple[str, str]]
) -> None:
    wire = Wire()
    response = Response(wire, method, 1, lambda: True)
    response.start(status, headers)
    body = iter([b"", b"abc", b"it may have no end"])
    answer(body, response)
    assert list(body) == [b"it may have no end"]
    assert len(wire.sent) == 1
    assert response.whole
    assert not response.fault
