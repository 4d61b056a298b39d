"""Tries a running stack hop by hop: the plan's probes, run from outside, the innermost hop first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stack import hop
from stack.desired import Plan
from stack.hop import Result

__all__ = ["as_json", "results"]


def results(plan: Plan) -> Iterator[Result]:
    """One result a probe, as they come."""
    return (hop.check(probe) for probe in plan.probes)


def as_json(result: Result) -> dict[str, Any]:
    """A result as JSON types: what was tried, what was seen, how long it took (seconds), what to do."""
    probe = result.probe
    return {
        "hop": probe.hop,
        "title": probe.title,
        "tried": f"GET {probe.path} in {probe.protocol} on {probe.address}",
        "ok": result.passed,
        "saw": result.saw,
        "problem": result.problem,
        "seconds": round(result.seconds, 6),
        "hint": "" if result.passed else probe.hint,
    }
