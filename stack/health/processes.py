"""Whether a service's processes are there, and go on."""

from __future__ import annotations

from typing import Any

import psutil

from stack.health.finding import Finding, found

__all__ = ["processes"]


def processes(service: dict[str, Any]) -> Finding:
    """Looks at one service as the supervisor tells of it: does it serve, and is any of its processes stopped?"""
    name = service["name"]

    def look() -> tuple[str, str, str]:
        serving = [each for each in service["generations"] if each["state"] == "serving"]
        if not serving:
            ended = f"; the last one ended: {service['last_end']}" if service["last_end"] else ""
            return "", f"no generation of it serves{ended}", f"`stackctl logs {name}` has what it said."
        pid = serving[0]["pid"]
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            stopped = [each.pid for each in family if each.status() == psutil.STATUS_STOPPED]
        except psutil.Error:
            return "", f"process {pid} has just ended", "Try again: the supervisor is replacing it."
        if stopped:
            which = " ".join(map(str, stopped))
            return "", f"stopped by a signal (SIGSTOP): pid {which}", f"kill -CONT {which}"
        return f"generation {serving[0]['number']}, pid {pid} and {len(family) - 1} more", "", ""

    return found("process", f"processes of {name}", "what the supervisor keeps, and the state of each", look)
