"""The report of a smoke test: for a terminal, for scripts, for a CI's test view, for annotations in GitHub's."""

from __future__ import annotations

import re
import secrets
import textwrap
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

from stack.cli.show import coloured
from stack.errors import told
from stack.operations.smoke import Check, Report

__all__ = ["as_json", "failures", "github", "junit", "said_by_others", "table"]

WIDTH = 80
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def table(report: Report) -> str:
    """A line for each check; what it saw stands below if the line has no room for it."""
    room = min(38, max(len(each.name) for each in report.checks))
    return "\n".join(_line(each, room) for each in report.checks)


def _line(check: Check, room: int) -> str:
    head = f"{check.seconds * 1000:7.0f} ms  {check.name:{room}}".rstrip()
    line = f"{head:{room + 12}}  "
    word = coloured("32", "ok  ") if check.passed else coloured("31", "FAIL")
    saw = check.saw if check.passed else check.problem
    if not saw:
        return f"{word} {head}"
    if "\n" not in saw and len(f"FAIL {line}{saw}") <= WIDTH:
        return f"{word} {line}{saw}"
    indent = " " * 17
    return f"{word} {head}\n{textwrap.fill(saw, WIDTH, initial_indent=indent, subsequent_indent=indent)}"


def failures(report: Report) -> str:
    """What failed, what was said about it and what to do; then the last lines of each log."""
    parts = [told(f"{_called(each)}: {each.problem}", each.detail, each.hint) for each in report.failed]
    parts += [
        f"the last lines of {name}:\n" + "\n".join(f"    {line}" for line in lines)
        for name, lines in report.logs.items()
        if lines
    ]
    return "\n".join(parts)


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON types, as docs/commands.md describes them."""
    return {
        "name": report.name,
        "ok": not report.failed,
        "exit_code": report.exit_code,
        "checks": [_check(each) for each in report.checks],
        "logs": {name: list(lines) for name, lines in report.logs.items()},
    }


def _check(check: Check) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": check.kind,
        "name": check.name,
        "ok": check.passed,
        "seconds": round(check.seconds, 6),
        "saw": check.saw,
        "problem": check.problem,
        "detail": check.detail,
        "hint": check.hint,
    }
    if check.load is not None:
        found["requests"] = check.load.requests
        found["failed"] = check.load.failed
        found["p50"] = round(check.load.percentile(0.5), 6)
        found["p99"] = round(check.load.percentile(0.99), 6)
    return found


def junit(report: Report) -> bytes:
    """The report as a JUnit file: one suite, a case for each check."""
    seconds = f"{sum(each.seconds for each in report.checks):.3f}"
    counts = {"tests": str(len(report.checks)), "failures": str(len(report.failed)), "errors": "0", "time": seconds}
    root = ET.Element("testsuites", {"name": "stackctl smoke", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _xml(report.name), "skipped": "0", **counts})
    for check in report.checks:
        about = {"classname": f"smoke.{check.kind}", "name": _xml(check.name), "time": f"{check.seconds:.3f}"}
        case = ET.SubElement(suite, "testcase", about)
        if not check.passed:
            failure = ET.SubElement(case, "failure", {"message": _xml(check.problem), "type": check.kind})
            failure.text = _xml(told(check.problem, check.detail, check.hint))
        elif check.saw:
            ET.SubElement(case, "system-out").text = _xml(check.saw)
    for name, lines in report.logs.items():
        ET.SubElement(suite, "system-err").text = _xml("\n".join([f"the last lines of {name}:", *lines]))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def github(report: Report) -> Iterator[str]:
    """GitHub's command for each failure: the runner shows it at the commit."""
    for check in report.failed:
        hint = f"\n{check.hint}" if check.hint else ""
        yield f"::error title={_property(_called(check))}::{_data(check.problem + hint)}"


def said_by_others(text: str) -> str:
    """Text that is not ours, for GitHub's runner: nothing in it is taken for a command."""
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}\n{text}\n::{token}::"


def _called(check: Check) -> str:
    return f"smoke: {check.name}"


def _xml(text: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
