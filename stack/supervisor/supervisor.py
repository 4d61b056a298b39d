"""The supervisor: desired state in, processes out.

It proves a start, answers on the control socket, and brings the running stack to new plans; the work is done in
`generations`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stack import desired, hop
from stack.desired import Plan, Service
from stack.fleet import Refusal, Rollout
from stack.interrupts import ENDING
from stack.supervisor import control, place, sockets
from stack.supervisor.generations import Generations
from stack.supervisor.hints import telling
from stack.supervisor.log import Log, set_aside_if_full
from stack.supervisor.notify import Manager

__all__ = ["Outcome", "Supervisor"]

LOOK_AT_LOGS = 2.0  # seconds between two looks at how large the services' own logs are
LOOK_FOR_STOPPED = 1.5  # seconds between two looks; what is stopped in both is killed
LOADED_WITHIN = 1.0  # seconds between two looks whether somebody else's web server has loaded the site


@dataclass(frozen=True, slots=True)
class Outcome:
    """How something ended: well if there is no `message`; else what was wrong, what was said about it, what to do.

    `exit_code` is what a command that asked for it should end with.
    """

    message: str = ""
    detail: str = ""
    hint: str = ""
    exit_code: int = 0
    changes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The outcome as JSON types, with `ok`."""
        return {"ok": not self.message, **dataclasses.asdict(self)}


class Supervisor:
    """Keeps one stack running until it is told to stop."""

    def __init__(
        self,
        plan: Plan,
        listeners: dict[str, socket.socket],
        log: Log,
        announce: Callable[[Outcome], None],
        manager: Manager,
    ) -> None:
        """`announce` is told once, when the stack answers or will not; `manager`, above us, all that happens."""
        self.plan = plan
        self.log = log
        self.exit_code = 0
        self._announce: Callable[[Outcome], None] | None = announce
        self._generations = Generations(plan.services, listeners, log)
        self._since = time.time()
        self._applying = asyncio.Lock()
        self._left: dict[str, set[str]] = {}  # links by service that a web server may still look for, though they moved
        self._looking: set[int] = set()  # its workers that may
        self._asked_to_stop = 0
        self._manager = manager
        self._remark = ""  # what the manager shall know besides: why a start or a reload was refused

    async def run(self) -> int:
        """Everything from the first generation to the last process gone; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup stackctl up` outlives its terminal
                loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGCHLD, self._generations.reap)
        loop.add_signal_handler(signal.SIGUSR1, self.reopen_logs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # blocked by `up`
        server = await control.serve(self.plan.runtime_dir, self.answer)
        self.log.say(f"starts {self.plan.name} in {self.plan.project}")
        self._generations.reap()  # as process 1 we have adopted what ended before there was a handler
        self._generations.begin(self._prove())
        self._generations.begin(self._tend_logs())
        self._generations.begin(self._kill_stopped())
        if self._manager.listens:
            self._generations.begin(self._keep_informed())
        if self._manager.alive_every:
            self._generations.begin(self._keep_watched())
        await self._generations.keep()
        if self._announce is not None:
            self.exit_code = 130
            self._report(Outcome("stopped before the site answered", exit_code=self.exit_code))
        server.close()
        place.leave(self.plan.alias or self.plan.runtime_dir)
        self.log.say("stopped")
        self.log.flush()
        return self.exit_code

    def stop(self) -> None:
        """The whole stack, in order, finishing what is in hand. Asked once more, at once."""
        self._asked_to_stop += 1
        if self._asked_to_stop == 1:
            self.log.say("stops, finishing what is in hand")
        else:
            self._generations.kill()
        self._generations.stop()
        if self._asked_to_stop == 1:
            self._manager.stopping(self._doing())

    # Logs.

    def reopen_logs(self) -> None:
        """Every log file by its name again: somebody has moved them. To be told by SIGUSR1 is the custom of daemons."""
        self.log.reopen()
        self.log.say("opens its logs again")
        for service in self.plan.services:
            self._generations.reopen_logs(service)

    async def _tend_logs(self) -> None:
        """Sets aside what services log into files of their own, as `Log` does with its own file."""
        while True:
            await asyncio.sleep(LOOK_AT_LOGS)
            self.log.flush()
            for service in self.plan.services:
                if [each for each in service.logs if set_aside_if_full(Path(each), self.log.kept)]:
                    self._generations.reopen_logs(service)

    async def _kill_stopped(self) -> None:
        """Nothing stays stopped for long, though who stopped it may go on with it a moment later."""
        stopped: set[int] = set()
        while True:
            await asyncio.sleep(LOOK_FOR_STOPPED)
            stopped = self._generations.kill_stopped(stopped)

    # A start, and its end.

    async def _prove(self) -> None:
        """Waits for the first generation of everything, tries every hop from outside, and announces the result."""
        generations = self._generations
        await generations.until(lambda: generations.all_proven or generations.gave_up is not None)
        if generations.stopping:
            return
        if generations.gave_up is not None:
            self._fail(self._refused(*generations.gave_up))
            return
        results = [await hop.check_async(probe) for probe in self.plan.probes]
        if generations.stopping:
            return  # what was asked has been taken away meanwhile
        broken = [each for each in results if not each.passed and each.probe.ours]
        if broken:
            first = broken[0]
            message = f"{first.probe.title} does not work: {first.problem}"
            self._fail(Outcome(message, generations.all_words(), first.probe.hint, 4))
            return
        self.log.say(f"serves {self.plan.url}")
        self._report(Outcome())

    def _fail(self, outcome: Outcome) -> None:
        self.exit_code = outcome.exit_code
        self.log.say(outcome.message)
        self._report(outcome)
        self._remark = outcome.message
        self.stop()

    def _report(self, outcome: Outcome) -> None:
        if self._announce is not None:
            self._announce(outcome)
            self._announce = None
            if not outcome.message:
                self._manager.ready(self._doing())

    # What may be asked.

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request of the control socket; see `control`."""
        match request.get("do"):
            case "status":
                return {"ok": True, "status": self.status(), "plan": desired.to_json(self.plan)}
            case "stop":
                self.stop()
                return {"ok": True}
            case "apply":
                try:
                    plan = desired.from_json(str(request.get("plan")))
                except ValueError as error:
                    return Outcome(str(error), hint="stackctl was upgraded? down and up.").as_json()
                async with self._applying:
                    return (await self._reload(plan, fresh=bool(request.get("fresh")))).as_json()
            case "rollback":
                async with self._applying:
                    return (await self._roll_back()).as_json()
        return Outcome(f"cannot do {request.get('do')!r}").as_json()

    def status(self) -> dict[str, Any]:
        """The running stack as JSON types; times are seconds since the epoch."""
        return {
            "name": self.plan.name,
            "project": self.plan.project,
            "url": self.plan.url,
            "pid": os.getpid(),
            "since": self._since,
            "stopping": self._generations.stopping,
            "services": [self._service_status(name, rollout) for name, rollout in self._generations.rollouts.items()],
        }

    def _service_status(self, name: str, rollout: Rollout) -> dict[str, Any]:
        since, parked = self._generations.since(name), rollout.parked if rollout.keeps else None
        shown = ({parked.number: "parked"} if parked else {}) | {rollout.current: "serving"}
        return {
            "name": name,
            "state": "serving" if rollout.current is not None else "down",
            "restarts": rollout.restarts,
            "last_end": self._generations.reasons.get(name, ""),
            "generations": [
                {
                    "number": each.number,
                    "pid": each.child.pid,
                    "state": shown.get(each.number, each.child.state.value),
                    "since": since.get(each.number),
                }
                for each in rollout.generations
            ],
            "timeline": self._generations.timeline(name),
        }

    # What the service manager above us is told.

    def _doing(self) -> str:
        """The stack in a line, for people."""
        rollouts = self._generations.rollouts
        if self._generations.stopping:
            return self._remark if self.exit_code else "finishing what is in hand"
        if self._announce is not None:
            waited_for = [name for name, each in rollouts.items() if each.proven is None]
            return f"starting {', '.join(waited_for)}" if waited_for else "trying every hop"
        kept = {name: each.current for name, each in rollouts.items() if not each.stopping}
        verb = "fails at" if None in kept.values() else "serves"
        services = ", ".join(
            f"{name} is down ({self._generations.reasons.get(name, '?')})"
            if current is None
            else f"{name} generation {current}"
            for name, current in kept.items()
        )
        return "; ".join(each for each in (f"{verb} {self.plan.url}: {services}", self._remark) if each)

    async def _keep_informed(self) -> None:
        """Tells it whenever that changes."""
        while True:
            told = self._doing()
            self._manager.status(told)
            await self._generations.until(lambda told=told: self._doing() != told)  # type: ignore[misc]

    async def _keep_watched(self) -> None:
        """Signs of life, from the very loop that does everything else: if that hangs, they end."""
        while True:
            self._manager.alive()
            await asyncio.sleep(self._manager.alive_every)

    async def _reload(self, plan: Plan, *, fresh: bool) -> Outcome:
        """`_apply`, from "not ready" to "ready": it has been refused, or done."""
        if self._announce is not None:
            return await self._apply(plan, fresh=fresh)  # it has not been ready yet
        self._remark, after = "a reload is under way", "the last reload broke off"
        self._manager.reloading(self._doing())
        try:
            outcome = await self._apply(plan, fresh=fresh)
            after = outcome.message and f"the last reload was refused: {outcome.message}"
            return outcome
        finally:
            self._remark = after
            if not self._generations.stopping:
                self._manager.ready(self._doing())

    # A new plan.

    async def _apply(self, plan: Plan, *, fresh: bool) -> Outcome:
        """Brings the running stack to another plan: apps first, then web servers, then what is gone.

        Whole or not at all: what has been brought so far goes back if something later is refused.
        """
        generations, before = self._generations, self.plan
        try:
            added = {
                each.address: sockets.listen(each.address, each.backlog)
                for each in plan.listeners
                if each.address not in generations.listeners
            }
        except OSError as error:
            return Outcome(f"cannot listen on a new address: {error}", exit_code=1)
        generations.listeners |= added
        facts, workers = generations.rollouts, generations.workers()
        brought: list[Service] = []
        changes = []
        for service in sorted(plan.services, key=lambda each: each.tier):
            refusal, change = await self._bring(before.service(service.name), service, fresh=fresh)
            if refusal is not None:
                outcome = self._refused(service.name, refusal)
                for each in reversed(brought):
                    await generations.undo(each, facts.get(each.name))
                    old = before.service(each.name)
                    if each.link and (old is None or old.link != each.link):
                        place.unlink(each.link)
                generations.close(set(added))
                return outcome
            brought += [service] if change else []
            changes += [f"{service.name}: {change}"] if change else []
        for name in {each.name for each in before.services} - {each.name for each in plan.services}:
            generations.drop(name)
            changes.append(f"{name}: stopped")
        self.plan = plan
        self.log.kept = plan.logs
        place.remember(plan)
        await self._leave(before, plan, workers)
        generations.close(set(generations.listeners) - {each.address for each in plan.listeners})
        return Outcome(changes=tuple(changes))

    async def _bring(self, old: Service | None, new: Service, *, fresh: bool) -> tuple[Refusal | None, str]:
        """One service to what it shall be; returns why it was refused, or what was done."""
        as_before = old is not None and _lasting(replace(old, keep_previous=new.keep_previous)) == _lasting(new)
        if old is None or (fresh and new.link) or not as_before:
            refusal = await self._generations.replace(old, new)
            return refusal, f"generation {self._generations.rollouts[new.name].current} serves"
        if old.reads != new.reads:
            return await self._generations.reread(new), "read its changed files"
        return None, ""

    async def _leave(self, before: Plan, plan: Plan, workers: set[int]) -> None:
        """Retires what served before. Where a link has got another name, once no web server looks for the old one."""
        for each in plan.services:
            old = before.service(each.name)
            if old is not None and old.link:
                self._looking |= workers if old.link != each.link else set()
                self._left.setdefault(each.name, set()).add(old.link)
                self._left[each.name].discard(each.link)
        self._left = {name: links for name, links in self._left.items() if links and plan.service(name)}
        services = [each for each in plan.services if each.link]
        await self._generations.retire([each for each in services if each.name not in self._left])
        if self._left:
            self._generations.begin(self._leave_later(plan))

    async def _leave_later(self, plan: Plan) -> None:
        """The same, once the web server's workers of before are gone; nobody waits for what they have in hand.

        Of somebody else's it can only be seen that it has loaded the site with the new links.
        """
        at_most = max(each.stop_within for each in plan.services if each.link)  # so long it goes on with that
        if all(each.ours for each in plan.probes):
            await self._generations.until_gone(self._looking, at_most)
        else:
            for probe in plan.probes:
                while probe.hop == "web" and self.plan is plan and not (await hop.check_async(probe)).passed:  # noqa: ASYNC110
                    await asyncio.sleep(LOADED_WITHIN)
            await asyncio.sleep(at_most)
        async with self._applying:  # what lingers is not let go under a reload that may want it back
            if self.plan is plan:
                await self._retire_left(plan)

    async def _retire_left(self, plan: Plan) -> None:
        left, self._left, self._looking = self._left, {}, set()
        await self._generations.retire([each for each in plan.services if each.name in left], for_good=True)
        for links in left.values():
            for link in links:
                place.unlink(link)

    async def _roll_back(self) -> Outcome:
        """Every app to the generation that served before: it is parked, so that nothing has to start."""
        rollouts = self._generations.rollouts
        apps = [each for each in self.plan.services if each.link]
        parked = {name for name, each in rollouts.items() if each.keeps and each.parked} - set(self._left)
        if without := [each.name for each in apps if each.name not in parked]:
            return Outcome(
                f"nothing to roll back to: no generation of {', '.join(without)} is parked",
                hint="With [server] keep_previous = true a reload parks what served before it; but not across a\n"
                "change of protocol, as no web server would look for it any more.",
                exit_code=1,
            )
        changes, services = [], {}
        for each in apps:
            service = await self._generations.roll_back(each.name)
            services[each.name] = service or each
            changes.append(f"{each.name}: generation {self._generations.rollouts[each.name].current} serves again")
        self.plan = replace(self.plan, services=tuple(services.get(each.name, each) for each in self.plan.services))
        place.remember(self.plan)
        return Outcome(changes=tuple(changes))

    def _refused(self, name: str, refusal: Refusal) -> Outcome:
        said = "\n".join(telling(self._generations.words(name, refusal.number)))
        service = self._generations.service(name, refusal.serial)
        answered = service.probe is not None and refusal.reason.startswith("answered")
        hint = service.probe.hint if service.probe and answered else f"`stackctl logs {name}` has all that it said."
        return Outcome(f"{name} did not start: {refusal.reason}", said, hint, 1)


def _lasting(service: Service) -> Service:
    """What cannot change under a running process: its files can, if it reads them again."""
    return replace(service, reads="") if service.reload_signal else service
