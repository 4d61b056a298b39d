"""Known lines get a word of ours; others, and those that only look like them, do not."""

from __future__ import annotations

import pytest

from stack.supervisor.hints import SHORT, hint, telling

HEAD = "2026/01/31 12:00:00 [error] 7#7: "


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("*4 client intended to send too large body: 3000 bytes, client: 127.0.0.1", "[site] max_body"),
        ("*5 upstream prematurely closed connection while reading response header", "[server] timeout"),
        ("*6 upstream timed out (110: Connection timed out) while reading", "[server] timeout"),
        ("*7 connect() to unix:/run/a.sock failed (11: Resource temporarily unavailable)", "[server] backlog"),
    ],
)
def test_known_line_is_answered_with_the_setting(line: str, setting: str) -> None:
    assert setting in hint(HEAD + line)


@pytest.mark.parametrize(
    "line",
    ["hello", "", HEAD + '*1 open() "/x" failed, request: "GET /client intended to send too large body HTTP/1.1"'],
)
def test_other_lines_are_not(line: str) -> None:
    assert hint(line) == ""
    assert hint("client intended to send too large body") == ""


TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "app.py", line 1, in <module>',
    "    1 / 0",
    "ZeroDivisionError",
]


def test_few_last_words_are_told_whole() -> None:
    assert telling(["starting", *TRACEBACK, "ended"]) == ["starting", *TRACEBACK, "ended"]


def test_of_many_last_words_the_first_traceback_is_told() -> None:
    assert (
        telling(["about myself"] * SHORT + TRACEBACK + ["again"] + ["Traceback (most recent call last):", "x"])
        == TRACEBACK
    )
    assert telling(["about myself"] * SHORT + TRACEBACK[:-1]) == TRACEBACK[:-1]


def test_of_two_workers_that_say_the_same_at_once_one_is_shown() -> None:
    for offset in range(len(TRACEBACK)):
        first, second = [*TRACEBACK, *[""] * offset], [*[""] * offset, *TRACEBACK]
        mixed = [line for both in zip(first, second, strict=True) for line in both if line]
        assert telling(["about myself"] * SHORT + mixed) == TRACEBACK, offset


def test_of_many_last_words_without_a_traceback_the_end_is_told() -> None:
    assert telling([str(number) for number in range(SHORT * 2)]) == [str(number) for number in range(SHORT, SHORT * 2)]


def test_of_a_deep_traceback_the_end_is_told() -> None:
    deep = [TRACEBACK[0], *TRACEBACK[1:3] * SHORT, TRACEBACK[-1]]
    assert telling(deep) == deep[-SHORT:]
