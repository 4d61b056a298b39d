"""The supervisor: desired state in, processes out.

It proves a start, answers on the control socket, and tells the service manager above; the work is done in
`generations`, and `changes` brings the running stack to new plans.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stack import desired, hop
from stack.desired import Plan
from stack.fleet import Rollout
from stack.interrupts import ENDING
from stack.supervisor import control, place
from stack.supervisor.changes import Changes
from stack.supervisor.generations import Generations
from stack.supervisor.log import Log, set_aside_if_full
from stack.supervisor.notify import Manager
from stack.supervisor.outcome import Outcome

__all__ = ["Supervisor"]

LOOK_AT_LOGS = 2.0  # seconds between two looks at how large the services' own logs are
LOOK_FOR_STOPPED = 1.5  # seconds between two looks; what is stopped in both is killed


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
        self.log = log
        self.exit_code = 0
        self._announce: Callable[[Outcome], None] | None = announce
        self._generations = Generations(plan.services, listeners, log)
        self._since = time.time()
        self._changes = Changes(plan, self._generations, log)
        self._asked_to_stop = 0
        self._manager = manager
        self._remark = ""  # what the manager shall know besides: why a start or a reload was refused

    @property
    def plan(self) -> Plan:
        """What the stack is now."""
        return self._changes.plan

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
            self._fail(self._changes.refused(*generations.gave_up))
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
                async with self._changes.one_at_a_time:
                    return (await self._reload(plan, fresh=bool(request.get("fresh")))).as_json()
            case "rollback":
                async with self._changes.one_at_a_time:
                    return (await self._changes.roll_back()).as_json()
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
        """A new plan, from "not ready" to "ready": it has been refused, or done."""
        if self._announce is not None:
            return await self._changes.apply(plan, fresh=fresh)  # it has not been ready yet
        self._remark, after = "a reload is under way", "the last reload broke off"
        self._manager.reloading(self._doing())
        try:
            outcome = await self._changes.apply(plan, fresh=fresh)
            after = outcome.message and f"the last reload was refused: {outcome.message}"
            return outcome
        finally:
            self._remark = after
            if not self._generations.stopping:
                self._manager.ready(self._doing())
