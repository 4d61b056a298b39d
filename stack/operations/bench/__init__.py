"""`bench`: the app behind the same nginx, under each app server in turn, round after round, and what each one cost.

Every turn starts its stack anew, alone on the machine: what one process happens to be lucky with (where its memory
lies, how its dicts are hashed) does not last, nor do the others share its pages. The rounds go A B C A B C, so that
what the machine does meanwhile comes to all of them.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

from stack.config import Loaded, Override
from stack.desired import Plan
from stack.errors import StackError, UnhealthyError
from stack.facts import find_interpreter
from stack.operations import running, visitors
from stack.operations.bench import usage, wrk
from stack.operations.bench.contenders import Contender, chosen
from stack.operations.bench.figures import Series, Turn, series
from stack.operations.prepare import Prepared, load, prepare_loaded
from stack.operations.sandbox import Sandbox, overrides
from stack.operations.up import up_detached
from stack.operations.visitors import Request
from stack.plan import workers
from stack.webservers import PRIVATE

__all__ = ["Report", "Wanted", "bench", "measure"]

WARM = 1  # seconds of load before each measured one: caches fill, buffers grow, Python specialises its bytecode
ENTRY = "stackctl_entry"
NGINX = "nginx"  # the service
ORIGIN = "stackctl bench"
LAST = 20  # lines of the log with a failure


def _nothing() -> None:
    pass


Talk = Callable[[str], None]
Drive = Callable[[str, Request, int, int, Path], wrk.Counted]
"""Told wrk's path, what to ask for, how many connections and seconds, and a directory to work in."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure: `asks`, wherever the site is; so many `seconds` of load in each turn, made by `drive`.

    `bare`: without what stackctl puts between an app server and the app. `between` is called before each round.
    """

    asks: Sequence[Request]
    connections: int = 16
    seconds: int = 4
    rounds: int = 3
    bare: bool = False
    drive: Drive = wrk.run
    between: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, and where: `machine` in words, by topic."""

    name: str
    wanted: Wanted
    workers: int
    threads: int
    contenders: tuple[Contender, ...]
    series: tuple[Series, ...]
    machine: Mapping[str, str]


def bench(
    project: Path,
    flags: Sequence[Override],
    servers: Sequence[str],
    protocol: str,
    wanted: Wanted,
    warn: Callable[[Prepared], None],
    talk: Talk,
) -> Report:
    """Measures the app servers of these names, or all that are there; `protocol` "" for what suits each best.

    Raises:
        UsageError: there is none of that name, or it does not speak that.
        StackError: as `measure` does.
    """
    wrk.find()
    config = load(project, flags).config
    app = config.app_of(next(iter(config.sites.values())))
    python = find_interpreter(config, app, os.environ)
    contenders = chosen(servers, protocol, config.apps[app].server.threads, python, os.environ)
    return measure(project, flags, contenders, wanted, warn, talk)


def measure(
    project: Path,
    flags: Sequence[Override],
    contenders: Sequence[Contender],
    wanted: Wanted,
    warn: Callable[[Prepared], None],
    talk: Talk,
) -> Report:
    """Takes the turns. `warn` is told of the first stack that is prepared, `talk` of each turn.

    Raises:
        UnhealthyError: a request failed, or was answered with another status than 2xx.
        MissingProgramError: wrk is not there.
        StackError: a stack cannot be started.
    """
    program = wrk.find()
    loaded = load(project, flags)
    config = loaded.config
    app = config.app_of(next(iter(config.sites.values())))
    turns: list[Turn] = []
    seen: list[Prepared] = []

    def say(prepared: Prepared) -> None:
        if not seen:
            warn(prepared)
        seen.append(prepared)

    with Sandbox("bench") as sandbox, sandbox.interruptible():
        place = [*flags, *overrides(sandbox, loaded), *_behind_nginx(loaded)]
        for number in range(1, wanted.rounds + 1):
            wanted.between()
            for contender in contenders:
                talk(f"round {number} of {wanted.rounds}: {contender.name} ...")
                own = [*place, *contender.overrides(ORIGIN)]
                as_told = partial(_prepared, app=app, contender=contender, bare=wanted.bare)
                try:
                    plan = up_detached(project, own, say, private=True, prepare=as_told)
                except StackError as error:
                    raise type(error)(f"{contender.name}: {error.message}", error.hint, error.detail) from error
                turns += _turns(plan, project, app, contender.name, wanted, program, sandbox)
                running.down(project, where=sandbox.runtime_dir)
    return Report(
        name=config.name,
        wanted=wanted,
        workers=workers(config.apps[app], seen[0].facts),
        threads=config.apps[app].server.threads,
        contenders=tuple(contenders),
        series=series(turns),
        machine=_machine(seen[0], app, program),
    )


def _behind_nginx(loaded: Loaded) -> Iterator[Override]:
    """All stand behind the same nginx, whatever faces the clients otherwise."""
    short = any(each.startswith("site.") for each in loaded.origins)
    for name, site in loaded.config.sites.items():
        if site.web != PRIVATE:
            yield Override(f"{'site' if short else f'sites.{name}'}.web", PRIVATE, ORIGIN)


def _prepared(loaded: Loaded, *, app: str, contender: Contender, bare: bool) -> Prepared:
    prepared = prepare_loaded(loaded, with_peers=True)
    plan = _bare(prepared.plan) if bare else prepared.plan
    services = tuple(
        dataclasses.replace(each, argv=(*each.argv, *contender.arguments)) if each.name == app else each
        for each in plan.services
    )
    return dataclasses.replace(prepared, plan=dataclasses.replace(plan, services=services))


def _bare(plan: Plan) -> Plan:
    """The same, but each app server loads the app's entry itself, not what does for it what it does not."""

    def entry(text: str) -> str:
        return text.replace("stackctl_guarded", ENTRY).replace("stackctl_proxied", ENTRY)

    files = tuple(
        dataclasses.replace(each, text=entry(each.text))
        for each in plan.files
        if not each.path.endswith(("/stackctl_guarded.py", "/stackctl_proxied.py"))
    )
    services = tuple(dataclasses.replace(each, argv=tuple(map(entry, each.argv))) for each in plan.services)
    return dataclasses.replace(plan, files=files, services=services)


def _turns(
    plan: Plan, project: Path, app: str, server: str, wanted: Wanted, program: str, sandbox: Sandbox
) -> Iterator[Turn]:
    """Path by path, on a stack that runs."""
    site = next(each for each in plan.probes if each.hop == "site")
    pids = _pids(project, sandbox)
    for each in wanted.asks:
        asked = dataclasses.replace(each, address=site.address, host=site.host, within=site.within)
        _answers(asked, server)
        _loaded(asked, server, wanted, WARM, program, sandbox)
        before = usage.cpu(pids[app]), usage.cpu(pids[NGINX]), usage.ended(), *usage.machine()
        found = _loaded(asked, server, wanted, wanted.seconds, program, sandbox)
        after = usage.cpu(pids[app]), usage.cpu(pids[NGINX]), usage.ended(), *usage.machine()
        server_cpu, web_cpu, load_cpu, busy, everything = (now - then for now, then in zip(after, before, strict=True))
        others = busy - server_cpu - web_cpu - load_cpu
        yield Turn(
            server=server,
            path=str(asked) if asked.method != "GET" else asked.path,
            requests=found.requests,
            seconds=found.seconds,
            p50=found.p50,
            p99=found.p99,
            server_cpu=server_cpu,
            web_cpu=web_cpu,
            memory=usage.memory(pids[app]),
            others=max(0.0, others / everything),
        )


def _pids(project: Path, sandbox: Sandbox) -> dict[str, int]:
    """The first process of each service."""
    status = running.require(project, sandbox.runtime_dir).status
    return {each["name"]: each["generations"][-1]["pid"] for each in status["services"]}


def _answers(asked: Request, server: str) -> None:
    """Once, by ourselves: wrk sees no statuses but bad ones, and no bodies."""
    try:
        came = visitors.ask(asked)
    except (OSError, HTTPException) as error:
        raise UnhealthyError(f"{server}: {asked} was not answered: {visitors.failure(error)}") from None
    if not 200 <= came.status < 300:
        raise UnhealthyError(
            f"{server}: {asked} was answered {came.status}, not 2xx: such a figure would mean nothing",
            "Another path: --path PATH.",
            came.body[:400].decode("utf-8", "replace").strip(),
        )


def _loaded(asked: Request, server: str, wanted: Wanted, seconds: int, program: str, sandbox: Sandbox) -> wrk.Counted:
    found = wanted.drive(program, asked, wanted.connections, seconds, sandbox.directory)
    if found.failures or not found.requests:
        failed = ", ".join(f"{number} {words}" for words, number in found.failures.items()) or "none was answered"
        raise UnhealthyError(f"{server}: {asked}: of {found.requests} requests {failed}", "", _last_lines(sandbox))
    return found


def _last_lines(sandbox: Sandbox) -> str:
    try:
        said = (sandbox.state_dir / "log" / "stack.log").read_text("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(said.splitlines()[-LAST:])


def _machine(prepared: Prepared, app: str, program: str) -> dict[str, str]:
    """What it was measured with, by topic."""
    nginx = prepared.facts.nginx
    facts = prepared.facts.apps[app]
    return {
        "cpus": str(prepared.facts.cpus),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": ".".join(map(str, facts.python.version)),
        "app": facts.framework,
        "nginx": ".".join(map(str, nginx.version)) if nginx else "",
        "wrk": wrk.version(program),
    }
