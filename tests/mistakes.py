"""Writes docs/mistakes.md from a run of tests/e2e/test_mistakes.py: what is said to each mistake, word for word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "e2e" / "test_mistakes.py"
TARGET = ROOT / "docs" / "mistakes.md"
HEAD = """# What is said to a mistake

The real messages, from a run of `tests/e2e/test_mistakes.py` that `make mistakes` made; names, ports, numbers and times
are made the same. Each of them was followed by a look that nothing was left: no process, no socket, no half a file.

## The first hour

| mistake | exit code | the cause is told | what to do is told |
| --- | --- | --- | --- |
"""


def main() -> int:
    """Runs the tests and writes the page; the exit code of the tests."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "mistakes")
        file.touch()
        flags = ("-q", "-m", "e2e", "-p", "no:randomly", "-k", "not any_moment")
        argv = [sys.executable, "-m", "pytest", *flags, str(TESTS)]
        code = subprocess.run(argv, cwd=ROOT, env={**os.environ, "E2E_MISTAKES": str(file)}, check=False).returncode
        records = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    if code == 0:
        TARGET.write_text(page(sorted(records, key=lambda each: each["place"])), "utf-8")
    return code


def page(records: list[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    rows = [
        f"| {each['mistake']} | {_code(each)} | {_quoted(each['cause'])} | {_quoted(each['fix'])} |"
        for each in records
        if each["first_hour"]
    ]
    parts = [f"### {each['mistake']}\n\n{_end(each)}\n\n```text\n{each['said']}\n```\n" for each in records]
    return HEAD + "\n".join(rows) + "\n\n## All of them\n\n" + "\n".join(parts)


def _code(record: dict[str, Any]) -> str:
    return "-" if record["code"] is None else str(record["code"])


def _end(record: dict[str, Any]) -> str:
    return "No command ends; the stack serves on." if record["code"] is None else f"Exit code {record['code']}."


def _quoted(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return f"`` {line} ``" if "`" in line else f"`{line}`"


if __name__ == "__main__":
    sys.exit(main())
