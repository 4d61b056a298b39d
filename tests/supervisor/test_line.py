"""A line of a log: as text, as JSON, and back."""

from __future__ import annotations

import json
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from stack.supervisor.line import Line, parsed

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n"))
TAG = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
PID = st.integers(1, 2**22)


@given(TAG, PID, TEXT)
def test_json_and_back(tag: str, pid: int, text: str) -> None:
    line = Line.now(tag, pid, text)
    assert parsed(line.as_json()) == line


@given(TAG, PID, TEXT)
def test_text_and_back_but_for_the_milliseconds(tag: str, pid: int, text: str) -> None:
    line = Line.now(tag, pid, text)
    back = parsed(line.as_text())
    assert (back.service, back.pid, back.text) == (tag, pid, text)
    assert datetime.fromisoformat(back.time) == datetime.fromisoformat(line.time).replace(microsecond=0)
    assert back.as_text() == line.as_text()


def test_a_line_of_an_access_log_has_its_time_and_is_who_s_it_is_said_to_be() -> None:
    combined = '1.2.3.4 - ana [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 5 "-" "curl"'
    assert parsed(combined, "access") == Line("2000-10-10T13:55:36.000-07:00", "access", None, combined)
    assert parsed(combined, "access").as_text() == combined


@given(TEXT)
def test_every_line_becomes_json_with_the_same_keys(text: str) -> None:
    assert list(json.loads(parsed(text).as_json())) == ["time", "service", "pid", "text"]


def test_what_is_no_line_of_ours_is_its_text() -> None:
    impossible = "2026-99-99 00:00:00 app[1] x"
    for text in ("", "hello", "{", '{"time": 1}', "{}", impossible, '{"time":"","service":"","pid":"x","text":""}'):
        assert parsed(text, "app") == Line("", "app", None, text)
