"""The supervisor: desired state in, processes out.

One loop. What happens (a process ended, a probe was answered, somebody asks something) changes the facts in the fleet;
the fleet says what is due; the runner does it. Nothing is decided here, and nothing here waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stack import desired, hop
from stack.desired import Plan, Service
from stack.fleet import Act, Action, Fleet, Generation, Policy, Refusal, Rollout, State
from stack.interrupts import ENDING
from stack.supervisor import control, place, runner, sockets
from stack.supervisor.log import Log
from stack.supervisor.process import Process

__all__ = ["Outcome", "Supervisor"]

LOOK_AGAIN = 0.02  # seconds between two looks for a socket or pid file that is not there yet


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
        self._listeners = listeners
        self._services = {(each.name, 1): each for each in plan.services}
        self._fleet = Fleet({each.name: Rollout(_policy(each), each.tier) for each in plan.services})
        self._processes: dict[int, Process] = {}
        self._last_words: dict[tuple[str, int], list[str]] = {}
        self._reasons: dict[str, str] = {}
        self._since = time.time()
        self._changed = asyncio.Event()
        self._settling: set[asyncio.Event] = set()
        self._applying = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_to_stop = 0

    async def run(self) -> int:
        """Everything from the first generation to the last process gone; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup stackctl up` outlives its terminal
                loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # blocked by `up`
        server = await control.serve(self.plan.runtime_dir, self.answer)
        self.log.say(f"starts {self.plan.name} in {self.plan.project}")
        self._start(self._prove())
        self._step()
        while not (self._fleet.stopping and self._fleet.empty):
            await self._change()
            self._step()
        for task in self._tasks:
            task.cancel()
        if self._announce is not None:
            self.exit_code = 130
            self._report(Outcome("stopped before the site answered", exit_code=self.exit_code))
        server.close()
        for process in self._processes.values():
            process.close()
        place.leave(self.plan.alias or self.plan.runtime_dir)
        self.log.say("stopped")
        self.log.flush()
        return self.exit_code

    def stop(self) -> None:
        """The whole stack, in order: web servers first, then apps. Asked once more, at once."""
        self._asked_to_stop += 1
        if self._asked_to_stop == 1:
            self.log.say("stops, finishing what is in hand")
        for process in self._processes.values() if self._asked_to_stop > 1 else ():
            runner.tell_group(process.pid, "KILL")
        self._fleet = self._fleet.stopped()
        for address in list(self._listeners):
            self._listeners.pop(address).close()
        self._wake()

    # The loop: what is due is done.

    def _step(self) -> None:
        while actions := self._fleet.actions(_now()):
            for action in actions:
                self._do(action)
        for name, rollout in list(self._fleet.rollouts.items()):
            if rollout.stopping and not rollout.generations:
                self._fleet = self._fleet.without(name)
        if self._fleet.gave_up is not None and self._announce is not None and not self._fleet.stopping:
            self._fail(self._refused(*self._fleet.gave_up))

    async def _change(self) -> None:
        """Until something happens, or the fleet has something due."""
        wake_at = self._fleet.wake_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - _now())):
                await self._changed.wait()
        self._changed.clear()

    def _do(self, action: Action) -> None:
        service = self._services[action.service, action.serial]
        match action.act:
            case Act.SPAWN:
                self._spawn(service, action)
            case Act.LINK:
                self._link(service, action)
            case Act.FENCE:
                self._tell(action, Rollout.began_fence)
                self._start(self._fence(service, action))
            case Act.ASK:
                runner.tell(self._process(action).pid, service.stop_signal)
                self._tell(action, Rollout.after, Act.ASK)
            case Act.KILL:
                runner.tell_group(self._process(action).pid, "KILL")
                reason = action.reason or f"did not stop within {service.stop_within:g} s"
                self._reasons[_called(action)] = reason
                self.log.say(f"kills {_called(action)}: {reason}")
                self._tell(action, Rollout.after, Act.KILL)

    def _spawn(self, service: Service, action: Action) -> None:
        if service.link:
            Path(runner.generation_socket(service, action.number)).unlink(missing_ok=True)
        descriptors = {address: listener.fileno() for address, listener in self._listeners.items()}
        try:
            spawned = runner.spawn(service, action.number, descriptors)
        except (OSError, ValueError) as error:
            # As if it had been started and had ended at once: the fleet knows what follows.
            self.log.say(f"cannot start {_called(action)}: {error}")
            self._tell(action, Rollout.spawned, 0)
            self._tell(action, Rollout.ended, f"it cannot be started: {error}")
            return
        process = Process(service, action.number, action.serial, spawned, self.log)
        self._processes[spawned.pid] = process
        process.listen()
        self._tell(action, Rollout.spawned, spawned.pid)
        self._start(self._await_ready(service, action))

    def _link(self, service: Service, action: Action) -> None:
        if service.link:
            place.link(service.link, runner.generation_socket(service, action.number))
        seconds = time.time() - self._process(action).since
        self.log.say(f"{_called(action)} is ready after {seconds:.1f} s")
        self._tell(action, Rollout.became_current)

    async def _await_ready(self, service: Service, action: Action) -> None:
        """Looks until it answers its probe, or has written its pid; when it is too late, the fleet knows."""
        while (generation := self._generation(action)) and generation.child.state is State.STARTING:
            if service.probe is None:
                pid_file = service.pid_file.replace("{generation}", str(action.number))
                if place.read(pid_file).strip() == str(generation.child.pid):
                    self._tell(action, Rollout.became_ready)
            else:
                result = await hop.check_async(self._private(service, action))
                if result.passed:
                    self._tell(action, Rollout.became_ready)
                elif result.saw:
                    self._reasons[_called(action)] = result.problem
                    self._tell(action, Rollout.failed, result.problem)
            await asyncio.sleep(LOOK_AGAIN)

    async def _fence(self, service: Service, action: Action) -> None:
        """A last request to a socket that the link has left.

        Accept queues are first in, first out: once it is answered, nobody waits behind it.
        """
        if service.probe is not None:
            await hop.check_async(self._private(service, action))
        self._tell(action, Rollout.ended_fence)

    def _reap(self) -> None:
        def farewell(pid: int) -> str:
            return self._processes[pid].service.stop_signal if pid in self._processes else ""

        for gone in runner.reap(farewell):
            process = self._processes.pop(gone.pid, None)
            if process is None:
                continue  # an orphan that we had adopted
            process.read()
            action = Action(Act.ASK, process.service.name, process.number, process.serial)
            rollout = self._fleet.rollouts[action.service]
            reason = self._reasons.pop(_called(action), gone.reason)
            generation = rollout.generation(action.number)
            if generation is not None and not self._fleet.stopping and rollout.wants(generation):
                self._reasons[action.service] = reason
                self.log.say(f"{_called(action)} ended: {reason}")
            self._last_words[action.service, action.number] = list(process.tail)
            if process.service.link:
                Path(runner.generation_socket(process.service, action.number)).unlink(missing_ok=True)
            self._tell(action, Rollout.ended, reason)

    # A start, and its end.

    async def _prove(self) -> None:
        """Waits for the first generation of everything, tries every hop from outside, and announces the result."""
        await self._until(lambda: all(each.proven is not None for each in self._fleet.rollouts.values()))
        results = [await hop.check_async(probe) for probe in self.plan.probes]
        broken = [each for each in results if not each.passed and each.probe.ours]
        if broken:
            first = broken[0]
            message = f"{first.probe.title} does not work: {first.problem}"
            self._fail(Outcome(message, self._all_last_words(), first.probe.hint, 4))
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
            "stopping": self._fleet.stopping,
            "services": [self._service_status(name, rollout) for name, rollout in self._fleet.rollouts.items()],
        }

    def _service_status(self, name: str, rollout: Rollout) -> dict[str, Any]:
        since = {each.number: each.since for each in self._processes.values() if each.service.name == name}
        return {
            "name": name,
            "state": "serving" if rollout.current is not None else "down",
            "restarts": rollout.restarts,
            "last_end": self._reasons.get(name, ""),
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
        try:
            added = {
                each.address: sockets.listen(each.address, each.backlog)
                for each in plan.listeners
                if each.address not in self._listeners
            }
        except OSError as error:
            return Outcome(f"cannot listen on a new address: {error}", exit_code=1)
        self._listeners |= added
        before, changes = self.plan, []
        for service in sorted(plan.services, key=lambda each: each.tier):
            refusal, change = await self._bring(before.service(service.name), service, fresh=fresh)
            if refusal is not None:
                for address in added:
                    self._listeners.pop(address).close()
                return self._refused(service.name, refusal)
            changes += [f"{service.name}: {change}"] if change else []
        for name in {each.name for each in before.services} - {each.name for each in plan.services}:
            self._fleet = self._fleet.with_rollout(name, replace(self._fleet.rollouts[name], stopping=True))
            changes.append(f"{name}: stopped")
        for address in set(self._listeners) - {each.address for each in plan.listeners}:
            self._listeners.pop(address).close()
        self.plan = plan
        place.remember(plan)
        self._wake()
        return Outcome(changes=tuple(changes))

    async def _bring(self, old: Service | None, new: Service, *, fresh: bool) -> tuple[Refusal | None, str]:
        """One service to what it shall be; returns why it was refused, or what was done."""
        rollout = self._fleet.rollouts.get(new.name)
        if old is None or rollout is None:
            rollout = Rollout(_policy(new), new.tier)
        elif (fresh and new.link) or replace(old, reads="") != replace(new, reads=""):
            serial = max(serial for name, serial in self._services if name == new.name) + 1
            rollout = replace(rollout.wishes(serial), policy=_policy(new))
        elif old.reads != new.reads:
            return await self._reread(new, rollout)
        else:
            return None, ""
        serial, first = rollout.serial, rollout.count + 1
        self._services[new.name, serial] = new
        self._fleet = self._fleet.with_rollout(new.name, rollout)
        self._wake()
        await self._until(lambda: self._settled(new.name, serial))
        after = self._fleet.rollouts[new.name]
        if after.refusal is not None and after.refusal.serial == serial:
            kept = replace(after, stopping=True) if old is None else replace(after, policy=_policy(old))
            self._fleet = self._fleet.with_rollout(new.name, kept)
            return after.refusal, ""
        if self._fleet.stopping:
            return Refusal(serial, first, "the stack is being stopped"), ""
        return None, f"generation {after.current} serves"

    def _settled(self, name: str, serial: int) -> bool:
        """The serial is refused, or it serves and the generations before it get no more requests."""
        rollout = self._fleet.rollouts[name]
        if self._fleet.stopping or (rollout.refusal is not None and rollout.refusal.serial == serial):
            return True
        old = [each for each in rollout.generations if each.linked and each.number != rollout.current]
        return rollout.proven == serial and all(each.fenced and self._is_quiet(name, each) for each in old)

    def _is_quiet(self, name: str, retired: Generation) -> bool:
        """Whether the connections that the web server keeps to a retired generation are gone by now."""
        quiet_at = (retired.child.asked_at or _now()) + self._services[name, retired.serial].idle_within
        if retired.child.asked_at is not None and _now() >= quiet_at:
            return True
        asyncio.get_running_loop().call_later(max(0.0, quiet_at - _now()), self._wake)
        return False

    async def _reread(self, service: Service, rollout: Rollout) -> tuple[Refusal | None, str]:
        """Has a running service read its changed files again: done once it has started a process that did."""
        current = rollout.current or 0
        self._services[service.name, rollout.serial] = service
        generation = rollout.generation(current)
        if generation is None or not generation.child.pid:
            return None, "will read its changed files when it starts"
        pid = generation.child.pid
        before = runner.children(pid)
        runner.tell(pid, service.reload_signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(service.start_within):
                while not runner.children(pid) - before:  # noqa: ASYNC110 - the kernel has no event for it
                    await asyncio.sleep(LOOK_AGAIN)
            return None, "read its changed files"
        return Refusal(rollout.serial, current, "it did not take up its changed files"), ""

    def _refused(self, name: str, refusal: Refusal) -> Outcome:
        said = "\n".join(self._words(name, refusal.number))
        service = self._services[name, refusal.serial]
        answered = service.probe is not None and refusal.reason.startswith("answered")
        hint = service.probe.hint if service.probe and answered else f"`stackctl logs {name}` has all that it said."
        return Outcome(f"{name} did not start: {refusal.reason}", said, hint, 1)

    # Small things.

    def _tell(self, about: Action, event: Callable[..., Rollout], *details: Any) -> None:
        """What happened to a generation, to the fleet; the moment is added where the event wants one."""
        rollout = self._fleet.rollouts.get(about.service)
        if rollout is not None:
            timed = () if event in (Rollout.became_current, Rollout.began_fence, Rollout.ended_fence) else (_now(),)
            first = (*details, about.number) if event is Rollout.after else (about.number, *details)
            self._fleet = self._fleet.with_rollout(about.service, event(rollout, *first, *timed))
        self._wake()

    def _generation(self, about: Action) -> Any:
        rollout = self._fleet.rollouts.get(about.service)
        return rollout.generation(about.number) if rollout is not None else None

    def _process(self, about: Action) -> Process:
        found = (about.service, about.number)
        return next(each for each in self._processes.values() if (each.service.name, each.number) == found)

    def _private(self, service: Service, about: Action) -> desired.Probe:
        """The service's probe, aimed at one generation's own socket."""
        if service.probe is None:
            raise AssertionError(f"{service.name} has no probe")
        return replace(service.probe, address="unix:" + runner.generation_socket(service, about.number))

    def _words(self, name: str, number: int) -> list[str]:
        """What a generation said last, whether it still lives or not."""
        for process in self._processes.values():
            if (process.service.name, process.number) == (name, number):
                process.read()
                return list(process.tail)
        return self._last_words.get((name, number), [])

    def _all_last_words(self) -> str:
        return "\n".join(line for each in self._processes.values() for line in list(each.tail)[-20:])

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.log.say(f"a bug in stackctl: {task.exception()!r}")

    async def _until(self, holds: Callable[[], bool]) -> None:
        changed = asyncio.Event()
        self._settling.add(changed)
        try:
            while not holds():
                changed.clear()
                await changed.wait()
        finally:
            self._settling.discard(changed)

    def _wake(self) -> None:
        self._changed.set()
        for each in self._settling:
            each.set()


def _policy(service: Service) -> Policy:
    return Policy(start_within=service.start_within, stop_within=service.stop_within)


def _called(action: Action) -> str:
    return f"{action.service} generation {action.number}"


def _now() -> float:
    return time.monotonic()
