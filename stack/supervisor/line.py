"""One line of a log: when, who, and what it says; as text, as JSON, and back.

As JSON it is an object with the keys `time` (RFC 3339: the zone, and milliseconds), `service`, `pid` and `text`, in
this order. As text it is `2026-01-31 12:00:00 app[123] text`, where the time is that of the machine's own zone.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime

__all__ = ["Line", "parsed"]

TEXT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) ([^\s\[]+)\[(\d+)\] (.*)", re.DOTALL)
COMBINED = re.compile(r'\S+ - .*?\[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "', re.DOTALL)
"""A line of an access log as nginx writes it, and Apache: https://httpd.apache.org/docs/2.4/logs.html#combined."""


@dataclass(frozen=True, slots=True)
class Line:
    """`time` is as in JSON. What does not say when it was written has none, and what does not say by whom no `pid`."""

    time: str
    service: str
    pid: int | None
    text: str

    @classmethod
    def now(cls, service: str, pid: int, text: str) -> Line:
        """What is said at this moment."""
        return cls(_rfc_3339(datetime.now().astimezone()), service, pid, text)

    def as_text(self) -> str:
        """The line for people. One that did not come with a pid is its text alone."""
        if self.pid is None:
            return self.text
        return f"{self.time[:10]} {self.time[11:19]} {self.service}[{self.pid}] {self.text}"

    def as_json(self) -> str:
        """The line for programs."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


def parsed(line: str, service: str = "") -> Line:
    """A line of either form; `service` wrote it, if it does not say so itself."""
    try:
        return _parsed(line, service)
    except (ValueError, TypeError, KeyError):
        return Line("", service, None, line)


def _parsed(line: str, service: str) -> Line:
    if line.startswith("{"):
        value = json.loads(line)
        return Line(str(value["time"]), str(value["service"]), int(value["pid"]), str(value["text"]))
    if found := TEXT.fullmatch(line):
        time = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").astimezone()
        return Line(_rfc_3339(time), found[2], int(found[3]), found[4])
    if found := COMBINED.match(line):
        return Line(_rfc_3339(datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z")), service, None, line)
    raise ValueError(line)


def _rfc_3339(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
