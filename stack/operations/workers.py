"""What the workers of the bundled server do, as each generation's own master tells it."""

from __future__ import annotations

from typing import Any

from stack.desired import Service
from stack.operations.running import Running
from stack.supervisor.runner import generation_control
from stack.wsgi import state

__all__ = ["with_workers"]

TELLS = "--state"  # the flag of a server that tells it


def with_workers(running: Running) -> dict[str, Any]:
    """The status, and in each generation its `workers`: None where nobody tells them."""
    services = []
    for each in running.status["services"]:
        service = running.plan.service(each["name"])
        generations = [
            {**generation, "workers": _workers(service, generation["number"])} for generation in each["generations"]
        ]
        services.append({**each, "generations": generations})
    return {**running.status, "services": services}


def _workers(service: Service | None, number: int) -> list[dict[str, Any]] | None:
    if service is None or not service.link or TELLS not in service.argv:
        return None
    try:
        found = state.read(generation_control(service, number))
    except (OSError, ValueError):  # it starts, or ends
        return None
    workers = found.get("workers") if isinstance(found, dict) else None
    return workers if isinstance(workers, list) else None
