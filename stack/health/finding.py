"""What was found at one hop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stack.hop import Result

__all__ = ["Finding", "found", "of_result"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried, what was seen, how long it took (seconds); if there is a `problem`, what to do."""

    hop: str
    title: str
    tried: str
    saw: str
    problem: str
    seconds: float
    hint: str

    @property
    def passed(self) -> bool:
        """Whether the hop works."""
        return not self.problem

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON types, with `ok`."""
        return {**dataclasses.asdict(self), "ok": self.passed, "seconds": round(self.seconds, 6)}


def of_result(result: Result) -> Finding:
    """What a probe found."""
    probe = result.probe
    tried = f"GET {probe.path} in {probe.protocol} on {probe.address}"
    hint = "" if result.passed else probe.hint
    return Finding(probe.hop, probe.title, tried, result.saw, result.problem, result.seconds, hint)


def found(hop: str, title: str, tried: str, look: Callable[[], tuple[str, str, str]]) -> Finding:
    """What `look` found: what it saw, the problem, the hint."""
    began = time.monotonic()
    saw, problem, hint = look()
    return Finding(hop, title, tried, saw, problem, time.monotonic() - began, hint if problem else "")
