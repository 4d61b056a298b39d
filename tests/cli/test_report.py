"""The report of a smoke: a table that fits a terminal, a JUnit file that parses, annotations for GitHub."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.cli import report
from stack.operations.smoke import Check, Report
from stack.operations.visitors import Load

LOAD = Load(4, 1, ("GET /: refused",), (0.001, 0.002, 0.003))
GOOD = Check("up", "up", 1.5, "http://127.0.0.1:1/")
BAD = Check("path", "GET /a,b:c", 0.0125, "500, 9 bytes", "answered 500, not below 400", "Look\nthere.", "<b>100%</b>")
UNDER_LOAD = Check("reload", "reload", 2.0, "4 requests", "1 of 4 requests failed", load=LOAD)
FAILED = Report("shop", (GOOD, BAD, UNDER_LOAD), {"app": ("first", "last \x1b[31m"), "nginx": ()})


def test_a_line_says_what_was_tried_how_long_it_took_and_what_came() -> None:
    assert report.table(Report("shop", (GOOD,), {})) == "ok      1500 ms  up  http://127.0.0.1:1/"
    assert report.table(FAILED).splitlines()[1] == "FAIL      12 ms  GET /a,b:c  answered 500, not below 400"


@given(st.text("abc /", max_size=80), st.text("abc ", max_size=300), st.booleans())
def test_what_is_ours_to_break_fits_a_terminal(name: str, text: str, good: bool) -> None:  # noqa: FBT001
    check = Check("hop", name[:60], 123.4, text if good else "", "" if good else text)
    words = max(map(len, text.split()), default=0)
    assert all(len(line) <= 80 or words > 60 for line in report.table(Report("shop", (check,), {})).splitlines())


def test_failures_are_told_with_detail_and_hint_and_then_the_logs() -> None:
    text = report.failures(FAILED)
    order = ["GET /a,b:c: answered 500", "<b>100%</b>", "-> Look", "-> there.", "1 of 4", "last lines of app", "first"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert "nginx" not in text


def test_json_holds_everything() -> None:
    found = json.loads(json.dumps(report.as_json(FAILED)))
    assert (found["name"], found["ok"], found["exit_code"]) == ("shop", False, 4)
    assert [each["ok"] for each in found["checks"]] == [True, False, False]
    assert found["checks"][2] | {"requests": 4, "failed": 1, "p50": 0.002, "p99": 0.003} == found["checks"][2]
    assert "requests" not in found["checks"][0]
    assert found["logs"]["app"][0] == "first"


def test_junit_has_a_case_for_each_check() -> None:
    root = ET.fromstring(report.junit(FAILED))
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.attrib | {"name": "shop", "tests": "3", "failures": "2", "errors": "0"} == suite.attrib
    cases = [(each.get("classname"), each.get("name"), each.find("failure") is None) for each in suite.iter("testcase")]
    assert cases == [("smoke.up", "up", True), ("smoke.path", "GET /a,b:c", False), ("smoke.reload", "reload", False)]
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "answered 500, not below 400"
    assert "<b>100%</b>" in str(failure.text)
    logs = [str(each.text) for each in suite.findall("system-err")]
    assert "last \N{REPLACEMENT CHARACTER}[31m" in logs[0]


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_junit_can_be_parsed_whatever_was_said(text: str) -> None:
    check = Check("path", text, 0.0, "", text or "x", text, text)
    found = ET.fromstring(report.junit(Report(text, (check,), {text: (text,)})))
    assert found.get("failures") == "1"


@pytest.mark.parametrize("checks", [(GOOD,), (GOOD, GOOD)])
def test_success_is_no_annotation(checks: tuple[Check, ...]) -> None:
    assert list(report.github(Report("shop", checks, {}))) == []


def test_an_annotation_is_one_line_with_its_marks_escaped() -> None:
    first, second = report.github(FAILED)
    assert first == "::error title=smoke%3A GET /a%2Cb%3Ac::answered 500, not below 400%0ALook%0Athere."
    assert second == "::error title=smoke%3A reload::1 of 4 requests failed"


def test_what_others_say_is_no_command_to_the_runner() -> None:
    first, *said, last = report.said_by_others("::error::forged\n::add-mask::x").splitlines()
    token = first.removeprefix("::stop-commands::")
    assert said == ["::error::forged", "::add-mask::x"]
    assert last == f"::{token}::"
    assert token not in report.said_by_others("")
