"""`smoke`: the whole life of the stack once, on a free port and in a place aside, with questions on the way.

An nginx that somebody else runs listens where it does, and looks for the app's socket in the one place that its site
names. So where it has loaded the site, the stack lives there, behind that nginx. Not while a stack of the project runs:
there is one such place, and who has it serves visitors. Then, and where that nginx has not loaded the site, a private
one stands in, and it is said.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from stack import health
from stack.config import AUTO, Loaded, Override, Smoke
from stack.desired import Plan, Probe
from stack.errors import ConfigError, MissingProgramError, StackError, UnhealthyError, UsageError
from stack.facts import runtime_dir
from stack.hop import Result
from stack.operations import logs, running, visitors
from stack.operations.prepare import Prepared, load, prepare_loaded
from stack.operations.sandbox import Sandbox, overrides
from stack.operations.up import up_detached
from stack.operations.visitors import Load, Request, Visitors
from stack.webservers import EXTERNAL, WEB_SERVERS

__all__ = ["Check", "Report", "chosen", "smoke"]

OUTSIDE = "nginx of this machine"
STANDS_IN = "a private nginx stands in"
LAST = 20  # lines of each log in the report of a failure
Talk = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried. `kind`: `web`, `up`, `hop`, `path`, `reload` or `down`; no `problem` if it went well.

    `exit_code` is what the command ends with if this is the first that failed. `load` is what visitors met meanwhile.
    """

    kind: str
    name: str
    seconds: float
    saw: str = ""
    problem: str = ""
    hint: str = ""
    detail: str = ""
    exit_code: int = UnhealthyError.exit_code
    load: Load | None = None

    @property
    def passed(self) -> bool:
        """Whether it went well."""
        return not self.problem


@dataclass(frozen=True, slots=True)
class Report:
    """All that was tried, in order; if something failed, the last lines of each log, by its name."""

    name: str
    checks: tuple[Check, ...]
    logs: Mapping[str, tuple[str, ...]]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(each for each in self.checks if not each.passed)

    @property
    def exit_code(self) -> int:
        """0, or what the first failure asks for."""
        return self.failed[0].exit_code if self.failed else 0


def smoke(
    project: Path, flags: Sequence[Override], paths: Sequence[str], say: Callable[[Prepared], None], talk: Talk
) -> Report:
    """Brings the project's stack up, asks, reloads while visitors ask, takes it down, and removes every trace.

    An nginx that somebody else runs is gone through if it has loaded the site. A stack of the project that runs already
    is not touched. `say` and `talk` are told what comes next.

    Raises:
        UsageError: one of the paths is none.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP came; nothing is left then, either.
    """
    began = time.monotonic()
    try:
        loaded = load(project, flags)
    except ConfigError as error:
        return Report(project.name, (_refused("up", "stack.toml", began, error),), {})
    wanted = chosen(loaded.config.smoke, paths)
    with Sandbox() as sandbox, sandbox.interruptible():
        checks = tuple(_checks(loaded, flags, sandbox, wanted, say, talk))
        said = {} if all(each.passed for each in checks) else _last_lines(sandbox, tuple(loaded.config.apps))
    return Report(loaded.config.name, checks, said)


def chosen(listed: Sequence[Smoke], paths: Sequence[str]) -> tuple[Smoke, ...]:
    """What to ask for: what stack.toml lists, or of it what has one of these paths; a path that it has not, as a GET.

    Raises:
        UsageError: one of the paths is none.
    """
    if not paths:
        return tuple(listed)
    found: list[Smoke] = []
    for path in paths:
        try:
            found += [each for each in listed if each.path == path] or [Smoke(path=path)]
        except ValueError:
            raise UsageError(f"{path} is not a path to ask for", "For example: /healthz") from None
    return tuple(found)


def _checks(
    loaded: Loaded,
    flags: Sequence[Override],
    sandbox: Sandbox,
    wanted: Sequence[Smoke],
    say: Callable[[Prepared], None],
    talk: Talk,
) -> Iterator[Check]:
    project = Path(loaded.config.project)
    if any(site.web == EXTERNAL for site in loaded.config.sites.values()):
        yield from _outside(loaded, flags, sandbox, talk)
    plan, check = _up(project, [*flags, *overrides(sandbox, loaded)], say)
    yield check
    if plan is None:
        return
    talk("tries every hop ...")
    hops = [_hop(each) for each in health.results(plan)]
    yield from hops
    if all(each.passed for each in hops):
        # By name, where each site is and which host it answers to: the plan's probes go in the config's order.
        probes = (each for each in plan.probes if each.hop == "site")
        sites = dict(zip(loaded.config.sites, probes, strict=True))
        answered: dict[Request, int] = {}
        talk(f"asks {len(wanted)} {'path' if len(wanted) == 1 else 'paths'} ...")
        for each in wanted:
            yield _path(each, sites, answered)
        for site in () if answered else sites.values():
            answered |= _status(site)
        talk(f"reloads while {visitors.KEPT + visitors.FRESH} visitors ask ...")
        yield _reload(project, sandbox, answered)
    talk("takes it down ...")
    yield _down(project, sandbox)


def _outside(loaded: Loaded, flags: Sequence[Override], sandbox: Sandbox, talk: Talk) -> Iterator[Check]:
    """What an nginx that somebody else runs has loaded. If it is the site, the place where it looks is borrowed."""
    project, began = Path(loaded.config.project), time.monotonic()
    try:
        found = running.find(project, runtime_dir(loaded.config, os.environ))
        printed = (
            running.replan(project, found, flags, for_here=False) if found else prepare_loaded(loaded, for_here=False)
        )
    except StackError as error:  # such as a machine for tests, which has no group of a web server
        yield Check("web", OUTSIDE, time.monotonic() - began, f"not asked: {error.message}; {STANDS_IN}")
        return
    results = tuple(health.loaded(printed.plan))
    instead = STANDS_IN + (", as the stack of the project runs" if found else "")
    if not found and all(each.passed for each in results):
        sandbox.borrow(printed.plan.runtime_dir)
        instead = ""
    talk(instead or "goes through the nginx that has loaded the site")
    yield from (_loaded(each, instead) for each in results)


def _loaded(result: Result, instead: str) -> Check:
    name, hint = f"nginx at {result.probe.address}", result.probe.hint
    if result.passed:
        saw = f"has loaded the site; {instead or 'everything goes through it'}"
        return Check("web", name, result.seconds, saw)
    if not result.saw:
        return Check("web", name, result.seconds, f"{result.problem}; {instead}")
    problem = f"has loaded another configuration than this one; {instead}"
    return Check("web", name, result.seconds, "", problem, hint, result.problem)


def _up(project: Path, flags: Sequence[Override], say: Callable[[Prepared], None]) -> tuple[Plan | None, Check]:
    began = time.monotonic()
    try:
        plan = up_detached(project, flags, say, private=True)
    except StackError as error:
        return None, _refused("up", "up", began, error)
    return plan, Check("up", "up", time.monotonic() - began, plan.url)


def _hop(result: Result) -> Check:
    probe = result.probe
    hint = "" if result.passed else probe.hint
    return Check("hop", probe.title, result.seconds, result.saw, result.problem, hint)


def _path(wanted: Smoke, sites: Mapping[str, Probe], answered: dict[Request, int]) -> Check:
    """One request; a GET that was answered is noted, with its status, for the visitors to come."""
    site = next(iter(sites.values())) if wanted.site == AUTO else sites[wanted.site]
    asked = visitors.request(wanted, site.address, site.host)
    began = time.monotonic()
    try:
        came = visitors.ask(asked)
    except (OSError, HTTPException) as error:
        return Check("path", str(asked), time.monotonic() - began, "", f"no answer: {visitors.failure(error)}")
    if asked.method == "GET" and not asked.body:
        answered[replace(asked, within=max(asked.within, site.within))] = came.status
    problem = visitors.wrong(wanted, came)
    body = came.body[:400].decode("utf-8", "replace").strip() if problem else ""
    return Check("path", str(asked), came.seconds, f"{came.status}, {len(came.body)} bytes", problem, detail=body)


def _status(probe: Probe) -> dict[Request, int]:
    """What a site's own probe asks for, and its status: for visitors who were told nothing else."""
    asked = Request("GET", probe.path, probe.address, probe.host, probe.within)
    try:
        return {asked: visitors.ask(asked).status}
    except (OSError, HTTPException):
        return {asked: 200}  # it has answered the hop's probe: the visitors will tell


def _reload(project: Path, sandbox: Sandbox, expected: Mapping[Request, int]) -> Check:
    began = time.monotonic()
    with Visitors({asked: partial(_as_before, status) for asked, status in expected.items()}) as all_of_them:
        all_of_them.another_turn()
        try:
            running.reload(project, where=sandbox.runtime_dir)
        except StackError as error:
            return _refused("reload", "reload", began, error)
        seconds = time.monotonic() - began
        all_of_them.another_turn()
    load = all_of_them.load()
    saw = (
        f"{load.requests} requests meanwhile, {load.failed or 'none'} failed; "
        f"p50 {load.percentile(0.5) * 1000:.1f} ms, p99 {load.percentile(0.99) * 1000:.1f} ms"
    )
    problem = f"{load.failed} of {load.requests} requests failed" if load.failed else ""
    return Check("reload", "reload", seconds, saw, problem, "", "\n".join(load.failures), load=load)


def _as_before(status: int, came: visitors.Came) -> str:
    return "" if came.status == status else f"answered {came.status}; before, it was {status}"


def _down(project: Path, sandbox: Sandbox) -> Check:
    began = time.monotonic()
    if not running.down(project, where=sandbox.runtime_dir):
        return Check("down", "down", time.monotonic() - began, problem="the stack had ended before it was told to")
    seconds = time.monotonic() - began
    left = sandbox.left_behind()
    if left:
        problem, hint = f"{len(left)} processes outlive the stack", "Does the app start them? It should end them, too."
        return Check("down", "down", seconds, "", problem, hint, "\n".join(left))
    return Check("down", "down", seconds, "nothing is left")


def _refused(kind: str, name: str, began: float, error: StackError) -> Check:
    own = error.exit_code if isinstance(error, ConfigError | MissingProgramError) else UnhealthyError.exit_code
    details: dict[str, Any] = {"hint": error.hint, "detail": error.detail, "exit_code": own}
    return Check(kind, name, time.monotonic() - began, "", error.message, **details)


def _last_lines(sandbox: Sandbox, apps: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By the logs' names; without the thousands of lines about visitors during the reload."""
    log = sandbox.state_dir / "log" / "stack.log"
    found = {}
    for name in (*apps, *WEB_SERVERS, "stack", logs.ACCESS):
        try:
            lines = (line.rstrip("\n") for line in logs.lines(log, name, sys.maxsize, follow=False))
            found[name] = tuple(deque((line for line in lines if visitors.AGENT not in line), maxlen=LAST))
        except StackError:
            continue  # it has written nothing
    return found
