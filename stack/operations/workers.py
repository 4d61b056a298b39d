"""What the workers of the app servers do: the bundled server's master tells it, those of others tell it themselves."""

from __future__ import annotations

from typing import Any

from stack.appservers import tally
from stack.desired import Service
from stack.operations.running import Running
from stack.supervisor.runner import children, generation_control, generation_tally
from stack.wsgi import state

__all__ = ["with_workers"]

STATE = "--state"  # the flag of a server whose master tells it


def with_workers(running: Running) -> dict[str, Any]:
    """The status, and in each generation its `workers`: None where nobody tells them."""
    services = []
    for each in running.status["services"]:
        service = running.plan.service(each["name"])
        generations = [{**generation, "workers": _workers(service, generation)} for generation in each["generations"]]
        services.append({**each, "generations": generations})
    return {**running.status, "services": services}


def _workers(service: Service | None, generation: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Of one generation. It may be about to start, or to end, or have another app server than the plan of now."""
    if service is None or not service.link:
        return None
    try:
        if STATE in service.argv:
            found = state.read(generation_control(service, generation["number"]))
            workers = found.get("workers") if isinstance(found, dict) else None
            return workers if isinstance(workers, list) else None
        if service.tally_variable:
            told, alive = tally.read(generation_tally(service, generation["number"])), children(generation["pid"])
            return [{**each, **_memory(each["pid"])} for each in told if each["pid"] in alive]
    except (OSError, ValueError):
        pass
    return None


def _memory(pid: int) -> dict[str, int | None]:
    return {"rss": state.resident(pid), "pss": state.proportional(pid)}
