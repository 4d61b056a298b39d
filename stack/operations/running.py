"""The running stack of a project: found, asked, changed, ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack import config as settings
from stack import desired, files
from stack.config import Loaded, Override
from stack.desired import Plan, Service
from stack.errors import ConfigError, StackError, UnhealthyError, UsageError
from stack.facts import runtime_dir, runtime_dirs
from stack.operations.prepare import Prepared, prepare_loaded
from stack.operations.run import before_reload
from stack.supervisor import control, place

__all__ = [
    "WATCHER",
    "Running",
    "down",
    "find",
    "load_for",
    "reload",
    "replan",
    "require",
    "rollback",
    "with_watcher",
]

QUICKLY = 3.0  # seconds in which a supervisor that is well answers a question
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
WATCHER = "watch"  # the service that reloads the stack when its files change, where `up` was asked for it


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that runs, as its supervisor tells; `status` is documented in docs/commands.md."""

    plan: Plan
    status: dict[str, Any]


def find(project: Path, where: str = "") -> Running | None:
    """The project's running stack, if there is one; the one in the runtime directory `where`, if that is given.

    Raises:
        UnhealthyError: there is a supervisor, but it does not answer.
    """
    where = where or _where(project)
    try:
        answer = control.call(where, {"do": "status"}, QUICKLY)
    except control.Nobody as error:
        try:
            place.clear(where)  # a killed run left it
        except place.Taken as taken:
            raise UnhealthyError(
                f"the supervisor (pid {taken.owner.get('pid', '?')}) does not answer: {error}",
                "It may be starting or stopping; if it stays so: `kill -9` it, and `stackctl up`.",
            ) from None
        except OSError:
            pass  # somebody else's
        return None
    return Running(desired.from_json(answer["plan"]), answer["status"])


def require(project: Path, where: str = "") -> Running:
    """The project's running stack; `where` as for `find`.

    Raises:
        StackError: there is none.
    """
    running = find(project, where)
    if running is None:
        raise StackError(f"no stack of {project} is running", "`stackctl up` starts it.")
    return running


def replan(project: Path, running: Running, flags: Sequence[Override] = (), *, for_here: bool = True) -> Prepared:
    """A new plan for a running stack, from what `load_for` says. Whoever watches its files goes on as they are."""
    prepared = prepare_loaded(load_for(project, running, flags), for_here=for_here)
    watcher = running.plan.service(WATCHER)
    if watcher is None:
        return prepared
    return dataclasses.replace(prepared, plan=with_watcher(prepared.plan, watcher))


def load_for(project: Path, running: Running, flags: Sequence[Override] = ()) -> Loaded:
    """The settings for a running stack: the file as it is now, under what the stack was started with, under `flags`.

    Raises:
        ConfigError: they are wrong.
    """
    overrides: dict[str, Override] = {}
    for each in (*(Override(*each) for each in running.plan.overrides), *flags):
        overrides.pop(each.key, None)  # what is said last comes last
        overrides[each.key] = each
    return settings.load(project, tuple(overrides.values()))


def with_watcher(plan: Plan, watcher: Service) -> Plan:
    """The plan, and beside its services the one that reloads the stack when its files change.

    Its apps write no bytecode: a worker that still loads what was there before a save would write it for what was
    saved, and Python takes it for that if both were saved in the same second, with the same size.

    Raises:
        UsageError: an app has its name.
    """
    if plan.service(watcher.name) is not None:
        raise UsageError(f"--watch runs beside the apps under the name {watcher.name}, which one of them has")
    services = (dataclasses.replace(each, env=NO_BYTECODE | each.env) if each.link else each for each in plan.services)
    return dataclasses.replace(plan, services=(*services, watcher))


def reload(
    project: Path, flags: Sequence[Override] = (), where: str = "", *, fresh: bool = True
) -> tuple[Prepared, tuple[str, ...]]:
    """Brings the project's code and settings to its running stack; returns what was done. `where` as for `find`.

    `fresh`: an app gets a new generation even if nothing but its code may have changed.

    Raises:
        StackError: something refuses the new; the old serves on, and the files are as they were.
    """
    running = require(project, where)
    prepared = replan(project, running, flags)
    plan = dataclasses.replace(prepared.plan, alias=running.plan.alias)
    if plan.runtime_dir != running.plan.runtime_dir:
        raise StackError("the stack's name or runtime directory has changed", "`stackctl down`, then `stackctl up`.")
    from stack.operations import ports  # noqa: PLC0415 - psutil is in it, and most commands listen nowhere

    for listener in plan.listeners:
        if listener not in running.plan.listeners:
            ports.listening(listener.address, listener.backlog).close()  # says who has it
    files.validate(plan)
    done = [f"ran {each}" for each in before_reload(prepared.loaded.config)]
    written = files.write(plan)
    try:
        answer = control.call(plan.runtime_dir, {"do": "apply", "plan": desired.to_json(plan), "fresh": fresh})
    except BaseException:
        written.put_back()
        raise
    if not answer["ok"]:
        written.put_back()
        raise StackError(
            f"nothing was changed, the old code serves on: {answer['message']}", answer["hint"], answer["detail"]
        )
    return prepared, (*done, *answer["changes"])


def rollback(project: Path, where: str = "") -> tuple[str, ...]:
    """Lets the parked generations serve again; returns what was done. `where` as for `find`.

    Raises:
        StackError: no stack runs, or nothing is parked.
    """
    running = require(project, where)
    answer = control.call(running.plan.runtime_dir, {"do": "rollback"})
    if not answer["ok"]:
        raise StackError(answer["message"], answer["hint"])
    return tuple(answer["changes"])


def down(project: Path, where: str = "") -> bool:
    """Ends the project's stack, and waits until it is gone; whether there was one. `where` as for `find`."""
    where = where or _where(project)
    try:
        control.call(where, {"do": "stop"}, QUICKLY)
    except control.Nobody:
        return find(project, where) is not None
    while True:
        with contextlib.suppress(place.Taken):
            place.clear(where)
            return True
        time.sleep(0.02)


def _where(project: Path) -> str:
    """The project's runtime directory; with a configuration that cannot be read, the one that there is."""
    try:
        loaded = settings.load(project, settings.environment_overrides(os.environ))
    except ConfigError:
        found = runtime_dirs(project, os.environ)
        if len(found) != 1:
            raise
        return found[0]
    return runtime_dir(loaded.config, os.environ)
