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
from typing import Any

from stack import desired, hop
from stack.desired import Plan, Service
from stack.fleet import Refusal, Rollout
from stack.interrupts import ENDING
from stack.supervisor import control, place, sockets
from stack.supervisor.generations import Generations
from stack.supervisor.log import Log

__all__ = ["Outcome", "Supervisor"]


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
        self, plan: Plan, listeners: dict[str, socket.socket], log: Log, announce: Callable[[Outcome], None]
    ) -> None:
        """`announce` is told once, when the stack answers or will not."""
        self.plan = plan
        self.log = log
        self.exit_code = 0
        self._announce: Callable[[Outcome], None] | None = announce
        self._generations = Generations(plan.services, listeners, log)
        self._since = time.time()
        self._applying = asyncio.Lock()
        self._asked_to_stop = 0

    async def run(self) -> int:
        """Everything from the first generation to the last process gone; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup stackctl up` outlives its terminal
                loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGCHLD, self._generations.reap)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # blocked by `up`
        server = await control.serve(self.plan.runtime_dir, self.answer)
        self.log.say(f"starts {self.plan.name} in {self.plan.project}")
        self._generations.begin(self._prove())
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
        self.stop()

    def _report(self, outcome: Outcome) -> None:
        if self._announce is not None:
            self._announce(outcome)
            self._announce = None

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
                    return (await self._apply(plan, fresh=bool(request.get("fresh")))).as_json()
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
        since = self._generations.since(name)
        return {
            "name": name,
            "state": "serving" if rollout.current is not None else "down",
            "restarts": rollout.restarts,
            "last_end": self._generations.reasons.get(name, ""),
            "generations": [
                {
                    "number": each.number,
                    "pid": each.child.pid,
                    "state": "serving" if each.number == rollout.current else each.child.state.value,
                    "since": since.get(each.number),
                }
                for each in rollout.generations
            ],
        }

    # A new plan.

    async def _apply(self, plan: Plan, *, fresh: bool) -> Outcome:
        """Brings the running stack to another plan: apps first, then web servers, then what is gone."""
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
        changes = []
        for service in sorted(plan.services, key=lambda each: each.tier):
            old = before.service(service.name)
            refusal, change = await self._bring(old, service, fresh=fresh)
            if refusal is not None:
                generations.close(set(added))
                return self._refused(service.name, refusal)
            changes += [f"{service.name}: {change}"] if change else []
        for name in {each.name for each in before.services} - {each.name for each in plan.services}:
            generations.drop(name)
            changes.append(f"{name}: stopped")
        generations.close(set(generations.listeners) - {each.address for each in plan.listeners})
        self.plan = plan
        place.remember(plan)
        return Outcome(changes=tuple(changes))

    async def _bring(self, old: Service | None, new: Service, *, fresh: bool) -> tuple[Refusal | None, str]:
        """One service to what it shall be; returns why it was refused, or what was done."""
        if old is None or (fresh and new.link) or replace(old, reads="") != replace(new, reads=""):
            refusal = await self._generations.replace(old, new)
            return refusal, f"generation {self._generations.rollouts[new.name].current} serves"
        if old.reads != new.reads:
            return await self._generations.reread(new), "read its changed files"
        return None, ""

    def _refused(self, name: str, refusal: Refusal) -> Outcome:
        said = "\n".join(self._generations.words(name, refusal.number))
        service = self._generations.service(name, refusal.serial)
        answered = service.probe is not None and refusal.reason.startswith("answered")
        hint = service.probe.hint if service.probe and answered else f"`stackctl logs {name}` has all that it said."
        return Outcome(f"{name} did not start: {refusal.reason}", said, hint, 1)
