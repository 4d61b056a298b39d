from __future__ import annotations

import random
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.wsgi.fastcgi import Records, pair, pairs, record
from stack.wsgi.http import HEAD_LIMIT
from stack.wsgi.protocol import ProtocolError

from . import wire

CASES = sorted((Path(__file__).resolve().parents[1] / "cases" / "fastcgi").glob("*.txt"))


def case(path: Path) -> tuple[list[str], bytes]:
    """What must come of it, and the bytes: see tests/cases/README.md."""
    expected, _, source = path.read_text("utf-8").partition("\n---\n")
    return expected.splitlines(), b"".join(map(made, source.splitlines()))


def made(line: str) -> bytes:
    """The record that a line stands for."""
    kind, *words = shlex.split(line)
    options = {name: int(value) for name, value in (each[1:].split("=") for each in words if each.startswith("@"))}
    words = [each for each in words if not each.startswith("@")]
    times = options.pop("times", 1)
    if kind == "bytes":
        return bytes.fromhex("".join(words)) * times
    request_id, *said = words
    if kind == "BEGIN_REQUEST":
        return wire.begin(int(request_id), keep="keep" in said, role=options.get("role", 1))
    if kind in {"PARAMS", "GET_VALUES"} and all("=" in each for each in said):
        variables = dict(each.split("=", 1) for each in said)
        content = wire.pairs(variables, long=bool(options.pop("long", 0)))
    else:
        content = " ".join(said).encode("latin-1").decode("unicode_escape").encode("latin-1")
    number = kind if kind in wire.KINDS else int(kind)
    return wire.record(number, int(request_id), content * times, **options)


def events(pieces: list[bytes]) -> list[str]:
    """All that comes of these bytes: requests, their bodies, what is replied, and how it ends."""
    records, said = Records(), list[str]()
    found, body = None, b""

    def replied(data: bytes) -> None:
        said.extend(f"reply {kind} {number} {content.hex()}".rstrip() for kind, number, content in wire.records(data))
        records.replies = b""

    try:
        for piece in pieces:
            records.receive(piece)
            while True:
                if found is None:
                    found = records.request()
                    replied(records.replies)
                    if found is None:
                        break
                    body = b""
                    said.append(f"request {found.id}{' keep' if found.keep else ''}")
                    said.extend(f"{name}: {value}" for name, value in found.variables.items())
                data = records.piece()
                replied(records.replies)
                if data is None:
                    break
                body += data
                if not data:
                    said.append(f"body: {body.decode('latin-1')}")
                    replied(records.end())
                    found = None
                    if records.closing:
                        return [*said, "closing"]
    except ProtocolError as error:
        replied(records.replies)
        return [*said, f"status: {error.status}"]
    return [*said, "closing" if records.closing else "idle" if records.idle else "incomplete"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    expected, data = case(path)
    assert events([data]) == expected


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_split_changes_nothing(path: Path) -> None:
    data = case(path)[1]
    whole = events([data])
    step = max(1, len(data) // 500)  # of the few that are large, not every byte
    for at in range(1, len(data), step):
        assert events([data[:at], data[at:]]) == whole, at
    assert events([data[at : at + step] for at in range(0, len(data), step)]) == whole


VARIABLES = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "5000", "HTTP_COOKIE": "x" * 1000}


@given(st.integers(1, 300), st.integers(0, 255), st.integers(1, 65535))
def test_any_number_of_records_of_any_size_is_the_same_request(most: int, padding: int, request_id: int) -> None:
    body = random.Random(most).randbytes(5000)
    data = (
        wire.begin(request_id)
        + wire.stream("PARAMS", request_id, wire.pairs(VARIABLES), most, padding)
        + wire.stream("STDIN", request_id, body, most, padding)
    )
    records = Records()
    records.receive(data)
    found = records.request()
    assert found is not None
    assert (found.id, found.variables, found.length) == (request_id, VARIABLES, 5000)
    parts = []
    while part := records.piece():
        parts.append(part)
    assert b"".join(parts) == body
    assert records.arrived()
    assert [each[:2] for each in wire.records(records.end())] == [("STDOUT", request_id), ("END_REQUEST", request_id)]
    assert records.closing
    assert records.leftover() in {b"", b"\xaa" * padding}


@given(st.dictionaries(st.text("AZ_", min_size=1, max_size=300), st.text("az", max_size=300), max_size=9))
def test_names_and_values_have_sizes_of_one_byte_and_of_four(variables: dict[str, str]) -> None:
    for long in (False, True):
        assert dict(pairs(wire.pairs(variables, long=long))) == variables
    assert b"".join(pair(*each) for each in variables.items()) == wire.pairs(variables)


@pytest.mark.parametrize(
    "data", [b"\1", b"\1\1", b"\1\1a", b"\x80", b"\x80\0\0\1", b"\xff\xff\xff\xff\0", b"\0\x80\0\0"]
)
def test_size_that_points_outside_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="reaches beyond"):
        pairs(data)


def test_largest_head_passes_and_a_larger_one_is_431() -> None:
    for size, fits in ((HEAD_LIMIT, True), (HEAD_LIMIT + 1, False)):
        variable = wire.pairs({"HTTP_COOKIE": "x" * (size - 1 - 4 - 11)})
        assert len(variable) == size
        records = Records()
        records.receive(wire.begin(1) + wire.stream("PARAMS", 1, variable, 1000))
        if fits:
            assert records.request() is not None
        else:
            with pytest.raises(ProtocolError, match="a head over 65536 bytes") as caught:
                records.request()
            assert caught.value.status == 431


def test_broken_body_stays_broken_and_ends_the_connection() -> None:
    records = Records()
    records.receive(wire.begin(1, keep=True) + wire.stream("PARAMS", 1, b"") + wire.record("PARAMS", 1))
    assert records.request() is not None
    for _ in range(2):
        with pytest.raises(ProtocolError):
            records.piece()
    assert not records.arrived()
    records.end()
    assert records.closing


def test_body_that_nobody_read_is_ignored_up_to_the_next_request() -> None:
    first, second = (wire.fastcgi({"X": each}, each.encode() * 9999, keep=True, most=1000) for each in "ab")
    records = Records()
    records.receive(first[:5000])
    assert records.request() is not None
    assert not records.arrived()
    records.end()
    assert not records.closing
    records.receive(first[5000:] + second)
    found = records.request()
    assert found is not None
    assert found.variables == {"X": "b"}
    assert records.piece() == b"b" * 1000


def test_largest_content_is_one_record() -> None:
    assert [*wire.records(record(6, 1, b"x" * 65528))] == [("STDOUT", 1, b"x" * 65528)]
    records = Records()
    records.receive(wire.begin(1) + wire.record("PARAMS", 1) + wire.record("STDIN", 1, b"x" * 65535, padding=255))
    assert records.request() is not None
    assert records.piece() == b"x" * 65535
    assert records.piece() is None


noise = st.binary(max_size=100) | st.lists(
    st.builds(
        wire.record,
        st.integers(0, 12),
        st.integers(0, 2),
        st.binary(max_size=10) | st.just(b"\0\1\1\0\0\0\0\0"),
        padding=st.integers(0, 9),
    )
    | st.binary(max_size=3)
).map(b"".join)


@given(noise)
def test_noise_raises_nothing_but_protocol_errors_however_it_is_split(data: bytes) -> None:
    whole = events([data])
    assert events([data[at : at + 1] for at in range(len(data))] or [b""]) == whole
    assert re.fullmatch(r"status: (400|431)|closing|idle|incomplete", whole[-1])
