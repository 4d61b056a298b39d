"""Writes docs/faults.md from a run of the tests that inject faults, into stackctl and into two stacks made by hand."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.fault import ENGINES, FAULTS, PEERS, RECORD, Seen  # noqa: E402 - it is found only now

TARGET = ROOT / "docs" / "faults.md"
HEAD = """# Faults

What goes wrong sooner or later, injected for real, and what was seen then. `make faults` makes this page from a run of
the tests that are marked so in `tests/e2e`: real programs, real signals. Where one fails there is no page.

The last two columns are the same app behind nginx without stackctl, configured by hand with care
([tests/faults/peer.py](../tests/faults/peer.py): master, harakiri, need-app and so on) and started as they are, with
nobody above them; a unit of systemd with `Restart=always` would start a killed master again. "-" is what was not tried
there; under stackctl, because no app server has a part in it.

{place}. Numbers are of this run; tests assert facts, not times. Two workers of two threads, time limit 2 s.

| fault | caused by | what must hold | {columns} |
| --- | --- | --- | {lines} |
"""
COLUMNS = ("bundled", "uWSGI under stackctl", "gunicorn under stackctl", *(f"{each}, by hand" for each in PEERS))


def main() -> int:
    """Runs the tests and writes the page; the exit code of the tests, or 1 if a fault was not tried at all."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "faults")
        file.touch()
        flags = ("-q", "-m", "fault", "-p", "no:randomly", "-n", "3", "--dist", "loadgroup")
        argv = [sys.executable, "-m", "pytest", *flags, str(ROOT / "tests" / "e2e")]
        code = subprocess.run(argv, cwd=ROOT, env={**os.environ, RECORD: str(file)}, check=False).returncode
        seen = [Seen(**json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    if missing := [each.name for each in FAULTS if not any(one.fault == each.name for one in seen)]:
        print(f"not tried: {', '.join(missing)}", file=sys.stderr)  # noqa: T201 - for whoever runs it
        return code or 1
    if code == 0:
        TARGET.write_text(page(seen), "utf-8")
    return code


def page(seen: list[Seen]) -> str:
    """The page, in Markdown."""
    said = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=False).stderr
    nginx = re.sub(r".*nginx/", "nginx ", said.strip())
    linux = ".".join(platform.release().split(".")[:2])
    place = f"Linux {linux}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {nginx}"
    head = HEAD.format(place=place, columns=" | ".join(COLUMNS), lines=" | ".join("---" for _ in COLUMNS))
    rows = [
        [each.name, each.cause, each.holds, *(_cell(each.name, column, seen) for column in (*ENGINES, *PEERS))]
        for each in FAULTS
    ]
    return head + "".join(f"| {' | '.join(map(_quoted, row))} |\n" for row in rows)


def _cell(fault: str, column: str, seen: list[Seen]) -> str:
    found = [each for each in seen if (each.fault, each.column) == (fault, column)]
    texts = dict.fromkeys(each.what for each in found)
    if not texts:
        return "-"
    return ("" if all(each.held for each in found) else "**failed**: ") + "; ".join(texts)


def _quoted(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
