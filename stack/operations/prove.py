"""`reload --prove`: a reload under requests of our own, through the web server; what they met before, during and after.

Nothing of an answer says which code gave it, and no app is changed for it to say so. The supervisor knows the moments
between which one code took over from the other, and visitors know when each answer came: so the first answer that may
be the new code's is known, and the last that may be the old's. What came before the one is certainly the old code's,
and what came after the other the new code's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stack.config import AUTO, Config, Override, Smoke
from stack.desired import Probe
from stack.errors import ConfigError, StackError, UnhealthyError, UsageError
from stack.operations import running, visitors
from stack.operations.prepare import Prepared
from stack.operations.running import Running
from stack.operations.smoke import chosen
from stack.operations.visitors import Came, Judge, Load, Request, Visit, Visitors
from stack.plan.sites import host, reachable

__all__ = ["PHASES", "Handover", "Proof", "prove"]

PHASES = ("before", "during", "after")
ASIDE = 1.0  # seconds that the phases before and after the reload last at least


@dataclass(frozen=True, slots=True)
class Handover:
    """When an app's new code followed its old one, in seconds from the beginning of the reload; None if not known.

    No answer of the new code came before `new_from`, and none of the old after `old_until`; `either` is how many
    answers may be the one's or the other's.
    """

    new_from: float | None
    old_until: float | None
    either: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What was met. `began` is when the reload was asked for, in seconds since the epoch; it took `seconds`.

    `loads` is by phase, `handovers` by app: those that were asked and changed hands. `refusal` is why there was no
    reload; without one, `prepared` is what it was to, and `changes` what was done.
    """

    began: float
    seconds: float
    loads: Mapping[str, Load]
    handovers: Mapping[str, Handover]
    changes: tuple[str, ...] = ()
    prepared: Prepared | None = None
    refusal: StackError | None = None

    @property
    def failed(self) -> int:
        """Requests that were not answered as they should be."""
        return sum(each.failed for each in self.loads.values())

    @property
    def exit_code(self) -> int:
        """That of the refusal; else 0, or 4 if a request failed."""
        if self.refusal is not None:
            return self.refusal.exit_code
        return UnhealthyError.exit_code if self.failed else 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, what judges its answer, and the app that answers it."""

    asked: Request
    judge: Judge
    app: str


def prove(
    project: Path,
    flags: Sequence[Override],
    paths: Sequence[str],
    talk: Callable[[str], None],
    shown: Callable[[Visitors], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Proof:
    """Reloads as `running.reload` does, while visitors ask for `paths`, or for what `[[smoke]]` lists, or `health`.

    `shown` may show how the visitors fare, while they do.

    Raises:
        UsageError: one of the paths cannot be asked for.
        StackError: no stack runs.
    """
    before = running.require(project)
    wanted = tuple(_wanted(project, before, flags, paths))
    count = visitors.KEPT + visitors.FRESH
    asked = dict.fromkeys(f"{each.asked.host}{each.asked.path}" for each in wanted)
    talk(f"{count} visitors ask for {', '.join(asked)}")
    changes: tuple[str, ...] = ()
    prepared = refusal = None
    crowd = Visitors({each.asked: each.judge for each in wanted})
    crowd.enter("before")
    with crowd, shown(crowd):
        _go_on(crowd)
        crowd.enter("during")
        began = time.time()
        try:
            prepared, changes = running.reload(project, flags)
        except StackError as error:
            refusal = error
        seconds = time.time() - began
        crowd.enter("after")
        _go_on(crowd)
    visits = crowd.visits()
    after = None if refusal else running.find(project)
    handovers = _handovers(after, wanted, visits, began) if after else {}
    return Proof(began, seconds, {each: crowd.load(each) for each in PHASES}, handovers, changes, prepared, refusal)


def _go_on(crowd: Visitors) -> None:
    crowd.another_turn()
    time.sleep(ASIDE)


# What is asked for.


def _wanted(project: Path, before: Running, flags: Sequence[Override], paths: Sequence[str]) -> Iterable[Wanted]:
    """Requests to the sites that are served already: before the reload, there is nobody else to be asked."""
    served = {(each.address, each.host): each for each in before.plan.probes if each.hop == "site"}
    try:
        config = running.load_for(project, before, flags).config
    except ConfigError:  # the reload will say so; meanwhile each site is asked for its health
        return [_healthy(each, "") for each in served.values()]
    places = {name: (reachable(site.listen[0]), host(site)) for name, site in config.sites.items()}
    sites = {name: served[place] for name, place in places.items() if place in served}
    found = [_listed(each, config, sites) for each in _gets(config, paths) if _site(each, config) in sites]
    if paths and not found:
        raise UsageError("the site that these paths belong to is not served yet", "Reload it without --prove first.")
    return (
        found
        or [_healthy(probe, config.app_of(config.sites[name])) for name, probe in sites.items()]
        or [_healthy(each, "") for each in served.values()]  # each of them moves
    )


def _gets(config: Config, paths: Sequence[str]) -> list[Smoke]:
    """Only GETs: they change nothing, however often they are asked."""
    found = [each for each in chosen(config.smoke, paths) if each.method == "GET" and not each.body]
    if missing := set(paths) - {each.path for each in found}:
        raise UsageError(f"{', '.join(sorted(missing))} is listed in [[smoke]], but not as a GET")
    return found


def _site(wanted: Smoke, config: Config) -> str:
    return next(iter(config.sites)) if wanted.site == AUTO else wanted.site


def _listed(wanted: Smoke, config: Config, sites: Mapping[str, Probe]) -> Wanted:
    """How long an answer takes is told, and fails nobody: it is not what `max_seconds` was meant for."""
    name = _site(wanted, config)
    patient = wanted.model_copy(update={"max_seconds": max(wanted.max_seconds, sites[name].within)})
    asked = visitors.request(patient, sites[name].address, sites[name].host)
    return Wanted(asked, partial(visitors.wrong, patient), config.app_of(config.sites[name]))


def _healthy(probe: Probe, app: str) -> Wanted:
    return Wanted(Request("GET", probe.path, probe.address, probe.host, probe.within), _is_healthy, app)


def _is_healthy(came: Came) -> str:
    """As a probe judges: an app need not have anything at its `health`."""
    return f"answered {came.status}, not below 500" if came.status >= 500 else ""


# What it was.


def _handovers(after: Running, wanted: Iterable[Wanted], visits: Sequence[Visit], began: float) -> dict[str, Handover]:
    app_of = {each.asked: each.app for each in wanted}
    found = {}
    for service in after.status["services"]:
        answered = [each for each in visits if each.seconds is not None and app_of[each.asked] == service["name"]]
        planned = after.plan.service(service["name"])
        timeline = service["timeline"]
        if answered and planned is not None and timeline.get("started", 0.0) >= began:
            found[service["name"]] = _handover(answered, timeline, began, shared=bool(planned.listeners))
    return found


def _handover(answered: Iterable[Visit], timeline: Mapping[str, float], began: float, *, shared: bool) -> Handover:
    """Behind a web server, the link decides who is asked; apps that take a public socket themselves share it."""
    first, last = (timeline.get(each) for each in (("started", "ended") if shared else ("linked", "fenced")))
    new = {each for each in answered if first is not None and each.ended >= first}
    old = {each for each in answered if last is not None and each.began <= last}
    return Handover(
        new_from=min((each.ended - began for each in new), default=None),
        old_until=max((each.ended - began for each in old), default=None),
        either=len(new & old),
    )
