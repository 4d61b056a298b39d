from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stack.wsgi import environ, http, repeated, uwsgi
from stack.wsgi.environ import Origin
from stack.wsgi.variables import length

from .conftest import packet

UNIX = Origin(trusted=True)
LINES = [
    "GET /a?b HTTP/1.1",
    "Host: a",
    "X-Forwarded-For: 198.51.100.7",
    "X-Forwarded-Proto: https",
    "X-Request-Start: 1764170000.123",
]
PAIRS = [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a?b"), ("REQUEST_START", "1764170000.123"), ("HTTP_HOST", "a")]


def request(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


NAMES = st.sampled_from(["Host", "Cookie", "X_A", "Proxy", "Content-Length", "Transfer-Encoding", "Expect", "", "A:b"])
FIELDS = st.sampled_from(["X-Request-Start", "x-request-start", "A: X-Request-Start", "\r\nX-Request-Start"])
MOMENTS = st.sampled_from(["1764170000.123", "t=1764170000123456", "0", "", ".", "1\n", "1\r\n", "1 "])
VALUES = st.sampled_from(["a", "1", "0", "b b", "chunked", "100-continue", "\x7f", "\xe9", "\r\n", "\n", "\r"])


@settings(max_examples=500)
@given(
    st.sampled_from(
        ["GET /a?b HTTP/1.1", "GET http://b/ HTTP/1.1", "POST / HTTP/1.0", "GET /\xe9%41 HTTP/1.1", "GET", LINES[-1]]
    ),
    st.just([])
    | st.lists(st.builds("{}: {}".format, NAMES, VALUES) | st.builds("{}: {}".format, FIELDS, MOMENTS), max_size=2),
    st.sampled_from([[], ["Host: a"], LINES[1:], LINES[1:]]),
    st.sampled_from(["", "", "", "\r\n", "\r\n\r\n"]),
    st.sampled_from([*[b""] * 5, b"\r\n", b"\r", b"x", request("GET / HTTP/1.1", "X-Request-Start: 1")]),
)
@example(LINES[-1], ["GET / HTTP/1.1"], ["Host: a"], "\r\n", b"")  # the parser passes over an empty line before it
@example("GET / HTTP/1.1", [], ["Host: a"], "", b"X-Request-Start: 1\r\n")  # it follows the head
@example("GET / HTTP/1.1", ["X-Request-Start: 1\n"], ["Host: a"], "", b"")
def test_a_head_that_is_known_is_what_the_parser_reads(
    first: str, lines: list[str], usual: list[str], before: str, rest: bytes
) -> None:
    data = before.encode() + request(first, *lines, *usual) + rest
    for _ in range(2):
        known = repeated.of_http(data, UNIX)
        if known is not None:
            found = http.head(data)
            assert found is not None
            assert (found.size, found.length) == (len(data), 0)
            assert known[0]._replace(size=found.size, fields=found.fields) == found
            assert known[1] == environ.of_http(found, UNIX, None) | {"wsgi.input": None}


@settings(max_examples=500)
@given(
    st.just([])
    | st.lists(
        st.tuples(
            st.sampled_from(["REQUEST_METHOD", "REQUEST_URI", "HTTP_COOKIE", "CONTENT_LENGTH", "REQUEST_START", ""]),
            st.sampled_from(["", "0", "1", "1764170000.123", "1764170000:123", "\r\0REQUEST_START\x0e\0" + "1" * 14]),
        ),
        max_size=5,
    ),
    st.sampled_from([[], PAIRS, PAIRS]),
    st.sampled_from([-1, 0, 0, 0, 1]),
    st.sampled_from([b"", b"", b"x"]),
)
@example([("REQUEST_START", "0")], PAIRS, 0, b"")  # the last counts
@example([], [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/"), ("REQUEST_START", "1764170000:123")], 0, b"")
def test_a_packet_that_is_known_is_what_the_parser_reads(
    pairs: list[tuple[str, str]], usual: list[tuple[str, str]], wrong: int, rest: bytes
) -> None:
    block = b"".join(len(each).to_bytes(2, "little") + each.encode() for pair in [*usual, *pairs] for each in pair)
    data = b"\0" + max(0, len(block) + wrong).to_bytes(2, "little") + b"\0" + block + rest
    for _ in range(2):
        known = repeated.of_uwsgi(data, UNIX)
        if known is not None:
            found = uwsgi.variables(data)
            assert found is not None
            assert found[1] == len(data)
            assert not length(found[0])
            assert known[1] == environ.of_variables(found[0], UNIX) | {"wsgi.input": None}
            assert known[0].decode("latin-1") == environ.request_line(known[1])


@pytest.mark.parametrize("start", ["1764170000.123", "1.0", "0"])
def test_what_a_web_server_says_is_known(start: str) -> None:
    known = repeated.of_http(request(*LINES[:-1], f"X-Request-Start: {start}"), UNIX)
    assert known is not None
    assert known[1]["HTTP_X_REQUEST_START"] == start
    assert repeated.of_uwsgi(packet(dict(PAIRS)), UNIX) is not None


@pytest.mark.parametrize(
    "lines",
    [
        LINES[:-1],
        ["POST /a HTTP/1.1", *LINES[1:], "Content-Length: 1"],
        ["POST /a HTTP/1.1", *LINES[1:], "Transfer-Encoding: chunked"],
        [*LINES, f"Cookie: {'x' * repeated.LONGEST}"],
        [*LINES, "X-Request-Start: 1"],
    ],
)
def test_what_has_a_body_or_no_moment_or_much_to_say_is_for_the_parser(lines: list[str]) -> None:
    assert repeated.of_http(request(*lines), UNIX) is None


@pytest.mark.parametrize("more", [{"CONTENT_LENGTH": "1"}, {"HTTP_COOKIE": "x" * repeated.LONGEST}])
def test_and_over_uwsgi(more: dict[str, str]) -> None:
    assert repeated.of_uwsgi(packet({**dict(PAIRS), **more}), UNIX) is None


def test_each_request_has_an_environ_of_its_own_whatever_an_app_did_to_the_one_before() -> None:
    for data, read in ((request(*LINES), repeated.of_http), (packet(dict(PAIRS)), repeated.of_uwsgi)):
        first = read(data, UNIX)
        assert first is not None
        before = dict(first[1])
        first[1].clear()
        again = read(data, UNIX)
        assert again is not None
        assert again[1] == before


def test_who_is_to_be_believed_is_so_whatever_was_said_before() -> None:
    for origin, address in ((UNIX, "198.51.100.7"), (Origin(trusted=False), "127.0.0.1")):
        known = repeated.of_http(request(*LINES), origin)
        assert known is not None
        assert known[1]["REMOTE_ADDR"] == address
