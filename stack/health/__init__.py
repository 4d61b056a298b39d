"""Tries a running stack hop by hop, the innermost first: processes, sockets, then the plan's probes from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stack import hop
from stack.desired import Plan
from stack.health.finding import Finding, of_result
from stack.health.processes import processes
from stack.health.sockets import socket
from stack.hop import Result

__all__ = ["Finding", "findings", "loaded", "results"]


def findings(plan: Plan, status: dict[str, Any]) -> Iterator[Finding]:
    """What is seen of a running stack, as it is seen; `status` is what its supervisor tells of it."""
    for service in status["services"]:
        yield processes(service)
    for service in plan.services:
        if service.link:
            yield socket(service, plan)
    yield from map(of_result, results(plan))


def results(plan: Plan) -> Iterator[Result]:
    """One result a probe, as they come."""
    return (hop.check(probe) for probe in plan.probes)


def loaded(plan: Plan) -> Iterator[Result]:
    """One result a site of an nginx that somebody else runs: whether it has loaded what we would print.

    Where nothing answers at all, nothing was seen.
    """
    return (hop.check(probe) for probe in plan.probes if probe.hop == "web" and not probe.ours)
