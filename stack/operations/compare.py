"""`diff`: the plan of the project as it is now, against the disk, what runs, and what an external nginx has loaded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from stack import files, health
from stack.desired import Logs, Plan, Service
from stack.hop import Result
from stack.operations import running
from stack.operations.prepare import prepare

__all__ = ["Difference", "differences"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as the plan says: `what` in one line, the change itself as text, what to do if `reload` does not."""

    what: str
    text: str
    hint: str = ""


def differences(project: Path) -> list[Difference]:
    """Files that would be written, services that would be replaced, then what an external nginx should load.

    Raises:
        StackError: `up` would raise it, too.
    """
    now = running.find(project)
    plan = (running.replan(project, now) if now else prepare(project)).plan
    found = [Difference(f"file {each.path}", each.diff()) for each in files.changes(plan)]
    found += _services(now.plan, plan) if now else []
    found += [Difference("logs", _fields(now.plan.logs, plan.logs))] if now and now.plan.logs != plan.logs else []
    return found + [_loaded(each) for each in health.loaded(plan) if not each.passed]


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


def _loaded(result: Result) -> Difference:
    probe = result.probe
    at = "" if probe.host in probe.address else f" for {probe.host}"
    what = f"the nginx at {probe.address} has loaded another configuration than this one{at}"
    if not result.saw:
        what = f"no nginx has loaded the site: at {probe.address}, {result.problem}"
    asked = f"GET {probe.path}"
    return Difference(what, f"- {asked}: {result.saw or 'no answer'}\n+ {asked}: {probe.status}\n", probe.hint)


def _fields(before: Service | Logs, after: Service | Logs) -> str:
    lines = []
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            lines += [f"- {field.name} = {_shown(old)}", f"+ {field.name} = {_shown(new)}"]
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
