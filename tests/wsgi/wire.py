"""The web server's side of FastCGI and SCGI, as bytes: written from the specifications, and from nothing of ours."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

HEADER = struct.Struct(">BBHHBB")
KINDS = {
    "BEGIN_REQUEST": 1, "ABORT_REQUEST": 2, "END_REQUEST": 3, "PARAMS": 4, "STDIN": 5, "STDOUT": 6, "STDERR": 7,
    "DATA": 8, "GET_VALUES": 9, "GET_VALUES_RESULT": 10, "UNKNOWN_TYPE": 11,
}  # fmt: skip
NAMES = {number: name for name, number in KINDS.items()}


def record(kind: str | int, request_id: int, content: bytes = b"", *, padding: int = 0, version: int = 1) -> bytes:
    """One record."""
    number = KINDS[kind] if isinstance(kind, str) else kind
    return HEADER.pack(version, number, request_id, len(content), padding, 0) + content + b"\xaa" * padding


def begin(request_id: int, *, keep: bool = False, role: int = 1) -> bytes:
    return record("BEGIN_REQUEST", request_id, struct.pack(">HB5x", role, keep))


def size(count: int, *, long: bool = False) -> bytes:
    return struct.pack(">I", count | 0x80000000) if long or count > 127 else bytes([count])


def pairs(variables: Mapping[str, str], *, long: bool = False) -> bytes:
    found = b""
    for name, value in variables.items():
        found += size(len(name), long=long) + size(len(value), long=long) + name.encode() + value.encode("latin-1")
    return found


def stream(kind: str, request_id: int, data: bytes, most: int = 65535, padding: int = 0) -> bytes:
    """A stream in records of `most` bytes, and its end."""
    parts = [data[at : at + most] for at in range(0, len(data), most)]
    return b"".join(record(kind, request_id, each, padding=padding) for each in [*parts, b""])


def fastcgi(
    variables: Mapping[str, str], body: bytes = b"", *, keep: bool = False, request_id: int = 1, most: int = 65535
) -> bytes:
    """A whole request."""
    params = stream("PARAMS", request_id, pairs(variables), most)
    return begin(request_id, keep=keep) + params + stream("STDIN", request_id, body, most)


def scgi(variables: Mapping[str, str], body: bytes = b"") -> bytes:
    """A whole request, of which only the variables that SCGI itself wants are added."""
    head = {"CONTENT_LENGTH": str(len(body)), "SCGI": "1", **variables}
    data = "".join(f"{name}\0{value}\0" for name, value in head.items()).encode("latin-1")
    return b"%d:%b,%b" % (len(data), data, body)


def records(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """The records in these bytes: their kind, id and content. The bytes must end where a record does."""
    at = 0
    while at < len(data):
        version, kind, request_id, count, padding, _ = HEADER.unpack_from(data, at)
        content = data[at + HEADER.size : at + HEADER.size + count]
        assert (version, len(content)) == (1, count)
        yield NAMES[kind], request_id, content
        at += HEADER.size + count + padding


def stdout(found: Iterable[tuple[str, int, bytes]], request_id: int = 1) -> bytes:
    """What a CGI program would have written: the content of STDOUT, if the answer is whole and ends as it should."""
    found = list(found)
    assert all(each[1] == request_id for each in found)
    assert [each[0] for each in found[-2:]] == ["STDOUT", "END_REQUEST"]
    assert {each[0] for each in found[:-1]} == {"STDOUT"}
    assert [bool(each[2]) for each in found[:-1]] == [True] * (len(found) - 2) + [False]
    assert found[-1][2] == bytes(8)
    return b"".join(each[2] for each in found[:-1])
