"""`diff`: the plan of the project as it is now, against the disk and against what runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from stack import files
from stack.desired import Plan, Service
from stack.operations import running
from stack.operations.prepare import prepare

__all__ = ["Difference", "differences"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What `reload` would change: `what` in one line, and the change itself as text."""

    what: str
    text: str


def differences(project: Path) -> list[Difference]:
    """Files that would be written, then services that would be replaced. Raises StackError as `up` does."""
    now = running.find(project)
    plan = (running.replan(project, now) if now else prepare(project)).plan
    found = [Difference(f"file {each.path}", each.diff()) for each in files.changes(plan)]
    return found + (_services(now.plan, plan) if now else [])


def _services(old: Plan, new: Plan) -> list[Difference]:
    found = []
    for service in new.services:
        before = old.service(service.name)
        if before is None:
            found.append(Difference(f"service {service.name}", f"+ {' '.join(service.argv)}\n"))
        elif before != service:
            found.append(Difference(f"service {service.name}", _fields(before, service)))
    gone = [each for each in old.services if new.service(each.name) is None]
    return found + [Difference(f"service {each.name}", f"- {' '.join(each.argv)}\n") for each in gone]


def _fields(before: Service, after: Service) -> str:
    lines = []
    for field in dataclasses.fields(Service):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            lines += [f"- {field.name} = {_shown(old)}", f"+ {field.name} = {_shown(new)}"]
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
