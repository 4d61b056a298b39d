"""Turns of a bench that never was."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from stack.operations.bench.figures import Turn

TURN = Turn(
    server="bundled",
    path="/",
    requests=8000,
    seconds=2.0,
    p50=0.0031,
    p99=0.0125,
    server_cpu=1.2,
    web_cpu=0.4,
    memory=50 * 1024**2,
    others=0.02,
)


def turns(server: str, path: str = "/", requests: Sequence[int] = (8000, 8000, 8000)) -> list[Turn]:
    """A turn for each number of requests, which all took the same CPU time."""
    return [dataclasses.replace(TURN, server=server, path=path, requests=each) for each in requests]
