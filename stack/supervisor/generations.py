"""The generations of a stack's services: what the fleet says is due is done here, and what happens is told to it.

A generation starts on a socket of its own, answers its probe there, gets the link; the one before it gets a last
request, the fence, and is then asked to stop. Nothing is decided here: see `fleet`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from stack import hop
from stack.child import Act, Policy, State
from stack.desired import Probe, Service
from stack.fleet import Action, Fleet, Generation, Refusal, Rollout
from stack.supervisor import place, runner
from stack.supervisor.log import Log
from stack.supervisor.process import Process

__all__ = ["Generations"]

LOOK_AGAIN = 0.02  # seconds between two looks for what the kernel has no event for
COUNT_AGAIN = 0.1  # seconds between two looks at who is connected: the kernel lists all unix sockets of the machine
LAST_CALL = 1.0  # seconds before the kill at which who is still connected keeps nobody from being asked
ASK_AGAIN = 1.0  # seconds between two requests to stop; each app and web server takes a second one for the first
OBEYS_WITHIN = 5.0  # seconds from the word to stop, to who has nothing in hand, until the signal: uWSGI may miss it
LOST_MOST = 3  # children that a service may lose before it is ready
REMEMBERED = 4  # generations of a service whose last words are kept


class Generations:
    """Keeps services as they are wished. `listeners` are the public sockets by address, to be handed down."""

    def __init__(self, services: Iterable[Service], listeners: dict[str, socket.socket], log: Log) -> None:
        """Nothing starts before `keep`."""
        self.listeners = listeners
        self.reasons: dict[str, str] = {}  # why a service's generation ended unasked the last time
        self._log = log
        self._services = {(each.name, 1): each for each in services}
        self._fleet = Fleet({each.name: _rollout(each) for each in self._services.values()})
        self._processes: dict[int, Process] = {}
        self._last_words: dict[tuple[str, int], list[str]] = {}
        self._killed_for: dict[str, str] = {}
        self._timelines: dict[str, dict[str, float]] = {}
        self._changed = asyncio.Event()
        self._waiting: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Does what is due, until the stack was told to stop and the last process is gone."""
        self._step()
        while not (self._fleet.stopping and self._fleet.empty):
            await self._change()
            self._step()
        for task in self._tasks:
            task.cancel()
        for process in self._processes.values():
            process.close()

    def stop(self) -> None:
        """The whole stack, in order: web servers first, then apps. Nobody can connect any more."""
        self._fleet = self._fleet.stopped()
        self.close(set(self.listeners))
        self.wake()

    def kill(self) -> None:
        """Everything, at once."""
        for process in self._processes.values():
            runner.tell_group(process.pid, "KILL")

    def reopen_logs(self, service: Service) -> None:
        """Has every process of a service open again, by their names, the files that it logs into."""
        if service.reopen_signal:
            for process in self._processes.values():
                if process.service.name == service.name:
                    self.begin(self._reopen_logs(process))

    def kill_stopped(self, before: set[int]) -> set[int]:
        """Kills what is stopped by a signal and was so `before`; returns what is. It cannot be asked for anything.

        A worker is replaced by its master, which need not notice by itself that one stands still; a master by us.
        """
        found = {
            pid: process
            for process in self._processes.values()
            for pid in (process.pid, *runner.children(process.pid))
            if runner.is_stopped(pid)
        }
        for pid in before & found.keys():
            process = found[pid]
            self._log.say(f"kills process {pid} of {process.service.name}: a signal has stopped it (SIGSTOP)")
            if pid == process.pid:
                self._killed_for[f"{process.service.name} generation {process.number}"] = "stopped by a signal, killed"
            runner.tell(pid, "KILL")
        return set(found)

    def close(self, addresses: set[str]) -> None:
        """Closes public sockets."""
        for address in addresses:
            self.listeners.pop(address).close()

    # What is known.

    @property
    def rollouts(self) -> dict[str, Rollout]:
        """The services and their generations, as facts."""
        return self._fleet.rollouts

    @property
    def stopping(self) -> bool:
        """Whether the stack was told to stop."""
        return self._fleet.stopping

    @property
    def gave_up(self) -> tuple[str, Refusal] | None:
        """The service that never came up, and why."""
        return self._fleet.gave_up

    @property
    def all_proven(self) -> bool:
        """Whether each service has served once."""
        return all(each.proven is not None for each in self.rollouts.values())

    def since(self, name: str) -> dict[int, float]:
        """When each living generation of a service was started, in seconds since the epoch."""
        return {each.number: each.since for each in self._processes.values() if each.service.name == name}

    def timeline(self, name: str) -> dict[str, float]:
        """How the newest generation of a service took over, as moments in seconds since the epoch.

        When it was `started`, became `ready`, was about to be `linked`; from when on what served before got no requests
        by the link (`fenced`), and when the last of it had `ended`. What has not happened is not there.
        """
        return self._timelines.get(name, {})

    def service(self, name: str, serial: int) -> Service:
        """What was wished under this serial."""
        return self._services[name, serial]

    def words(self, name: str, number: int) -> list[str]:
        """What a generation said last, whether it still lives or not."""
        for process in self._processes.values():
            if (process.service.name, process.number) == (name, number):
                process.read()
                return list(process.tail)
        return self._last_words.get((name, number), [])

    def all_words(self) -> str:
        """The last lines of everything that lives."""
        return "\n".join(line for each in self._processes.values() for line in list(each.tail)[-20:])

    # What is wished.

    async def replace(self, old: Service | None, new: Service) -> Refusal | None:
        """Brings a service to a new generation, a new service to its first; returns why it was refused, if it was.

        What served before it lingers, all ready to serve again, until `retire` or `undo`.
        """
        rollout = self.rollouts.get(new.name)
        lingered = rollout is not None and rollout.lingers
        if old is None or rollout is None:
            rollout = _rollout(new)
        else:
            serial = max(serial for name, serial in self._services if name == new.name) + 1
            rollout = replace(rollout.wishes(serial), policy=_policy(new), lingers=bool(new.link))
        serial, first = rollout.serial, rollout.count + 1
        self._services[new.name, serial] = new
        self._put(new.name, rollout)
        await self.until(lambda: self._is_decided(new.name, serial))
        after = self.rollouts[new.name]
        if after.refusal is not None and after.refusal.serial == serial:
            back = replace(after, lingers=lingered)
            self._put(new.name, replace(back, stopping=True) if old is None else replace(back, policy=_policy(old)))
            return after.refusal
        return Refusal(serial, first, "the stack is being stopped") if self.stopping else None

    async def retire(self, services: Iterable[Service], *, for_good: bool = False) -> None:
        """Lets go what served before, now that nobody connects to it any more, and waits until it gets no requests.

        What is kept for a rollback goes too if it is `for_good`: where no web server would find it again.
        """
        names = [each.name for each in services]
        for each in services:
            rollout = replace(self.rollouts[each.name], lingers=False, keeps=each.keep_previous)
            self._put(each.name, replace(rollout, previous=None) if for_good else rollout)
        await self.until(lambda: all(self._is_settled(name) for name in names))
        for name in names:
            self._note(name, "fenced")

    async def undo(self, service: Service, before: Rollout | None) -> None:
        """Back to what served before `replace`; `before` are the facts of then, None for a new service."""
        rollout = self.rollouts[service.name]
        if before is None:
            self._put(service.name, replace(rollout, stopping=True))
            return
        self._put(service.name, rollout.rolls_back())
        await self.until(lambda: self.stopping or self.rollouts[service.name].recalled is None)
        back = self.rollouts[service.name]
        self._put(
            service.name,
            replace(back, lingers=before.lingers, keeps=before.keeps, previous=before.previous, policy=before.policy),
        )

    async def roll_back(self, name: str) -> Service | None:
        """Has what is parked serve again, and parks what serves; returns what serves then, None if nothing is."""
        rollout = self.rollouts[name]
        if rollout.parked is None:
            return None
        self._put(name, rollout.rolls_back())
        await self.until(lambda: self.stopping or self.rollouts[name].recalled is None)
        return self._services[name, self.rollouts[name].serial]

    def workers(self) -> set[int]:
        """The process ids of the web servers' workers, those of a generation that is ending too."""
        masters = [each for each in self._processes.values() if not each.service.link]
        return {pid for each in masters for pid in runner.children(each.pid)}

    async def until_gone(self, pids: set[int], within: float) -> None:
        """Waits until no web server has a worker of these any more, or for so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while pids & self.workers():  # noqa: ASYNC110 - the kernel has no event for it
                    await asyncio.sleep(LOOK_AGAIN)

    async def reread(self, service: Service) -> Refusal | None:
        """Has a running service read its changed files again.

        Done once it has started a process that did, and those that did not take no connections any more.
        """
        rollout = self.rollouts[service.name]
        current = rollout.current or 0
        self._services[service.name, rollout.serial] = service
        generation = rollout.generation(current)
        if generation is None or not generation.child.pid:
            return None  # it will read them when it starts
        before = runner.children(generation.child.pid)
        runner.tell(generation.child.pid, service.reload_signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(service.start_within):
                while not runner.children(generation.child.pid) - before:  # noqa: ASYNC110 - the kernel has no event for it
                    await asyncio.sleep(LOOK_AGAIN)
                public = {os.fstat(each.fileno()).st_ino for each in self.listeners.values()}
                while any(runner.has_open(each, public) for each in before):  # noqa: ASYNC110 - nor for that
                    await asyncio.sleep(LOOK_AGAIN)
        if runner.children(generation.child.pid) - before:
            return None
        return Refusal(rollout.serial, current, "it did not take up its changed files")

    def drop(self, name: str) -> None:
        """Ends a service that is not wished any more."""
        self._put(name, replace(self.rollouts[name], stopping=True))

    def _put(self, name: str, rollout: Rollout) -> None:
        self._fleet = self._fleet.with_rollout(name, rollout)
        self.wake()

    def _is_decided(self, name: str, serial: int) -> bool:
        """The serial serves, or it is refused."""
        rollout = self.rollouts[name]
        refused = rollout.refusal is not None and rollout.refusal.serial == serial
        return self.stopping or refused or rollout.proven == serial

    def _is_settled(self, name: str) -> bool:
        """The generations before the one that serves get no more requests."""
        rollout = self.rollouts.get(name)
        if self.stopping or rollout is None:
            return True
        parked = rollout.parked
        old = [each for each in rollout.generations if each.linked and each.number != rollout.current]
        return all(each is parked or (each.fenced and self._is_quiet(name, each)) for each in old)

    def _is_quiet(self, name: str, retired: Generation) -> bool:
        """Whether the connections that the web server keeps to a retired generation are gone by now."""
        quiet_at = (retired.child.asked_at or _now()) + self._services[name, retired.serial].idle_within
        if retired.child.asked_at is not None and _now() >= quiet_at:
            return True
        asyncio.get_running_loop().call_later(max(0.0, quiet_at - _now()), self.wake)
        return False

    # The loop: what is due is done.

    def _step(self) -> None:
        while actions := self._fleet.actions(_now()):
            for action in actions:
                self._do(action)
        for name, rollout in list(self.rollouts.items()):
            if rollout.stopping and not rollout.generations:
                self._fleet = self._fleet.without(name)
        self._forget()

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
                self.begin(self._fence(service, action))
            case Act.ASK:
                self._tell(action, Rollout.after, Act.ASK)
                self.begin(self._ask(service, action))
            case Act.KILL:
                runner.tell_group(self._process(action).pid, "KILL")
                reason = action.reason or f"did not stop within {service.stop_within:g} s"
                self._killed_for[_called(action)] = reason
                self._log.say(f"kills {_called(action)}: {reason}")
                self._tell(action, Rollout.after, Act.KILL)

    def _spawn(self, service: Service, action: Action) -> None:
        runner.remove_files(service, action.number)
        self._timelines[action.service] = {"started": time.time()}
        descriptors = {address: listener.fileno() for address, listener in self.listeners.items()}
        try:
            spawned = runner.spawn(service, action.number, descriptors)
        except (OSError, ValueError) as error:
            # As if it had been started and had ended at once: the fleet knows what follows.
            self._log.say(f"cannot start {_called(action)}: {error}")
            self._tell(action, Rollout.spawned, 0)
            self._tell(action, Rollout.ended, f"it cannot be started: {error}")
            return
        process = Process(service, action.number, action.serial, spawned, self._log)
        self._processes[spawned.pid] = process
        process.listen()
        self._tell(action, Rollout.spawned, spawned.pid)
        self.begin(self._await_ready(service, action))
        self.begin(self._count_losses(action))

    def _link(self, service: Service, action: Action) -> None:
        self._note(action.service, "linked")
        if service.link:
            place.link(service.link, runner.generation_socket(service, action.number))
        seconds = time.time() - self._process(action).since
        self._log.say(f"{_called(action)} is ready after {seconds:.1f} s")
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
                    self._killed_for[_called(action)] = result.problem
                    self._tell(action, Rollout.failed, result.problem)
            await asyncio.sleep(LOOK_AGAIN)

    async def _count_losses(self, action: Action) -> None:
        """Refuses it as soon as its workers end again and again: uWSGI goes on to start others."""
        seen: set[int] = set()
        while (generation := self._generation(action)) and generation.child.state is State.STARTING:
            workers = runner.children(generation.child.pid)
            seen |= workers
            if len(seen - workers) >= LOST_MOST:
                problem = "its workers end before they are ready"
                self._killed_for[_called(action)] = problem
                self._tell(action, Rollout.failed, problem)
            await asyncio.sleep(LOOK_AGAIN)

    async def _ask(self, service: Service, action: Action) -> None:
        """Asks it to stop; by signal again and again: nginx forgets one that comes just before it first waits."""
        if service.stop_when_idle:
            await self._until_idle(service, action)
        told = False
        while (generation := self._generation(action)) and generation.child.state is State.STOPPING:
            if not told and runner.write_word(service, action.number):
                told = True
                await asyncio.sleep(OBEYS_WITHIN)
                continue
            runner.tell(generation.child.pid, service.stop_signal)
            await asyncio.sleep(ASK_AGAIN)

    async def _until_idle(self, service: Service, action: Action) -> None:
        """Waits until nobody is connected to a generation that has served, for as long as it is not soon to be killed.

        At a full stop a web server that is not ours may still come by the link: it finds no socket any more.
        """
        runner.remove_socket(service, action.number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(service.stop_within - LAST_CALL):
                while (  # noqa: ASYNC110 - the kernel has no event for it
                    (generation := self._generation(action))
                    and generation.linked
                    and generation.child.state is State.STOPPING
                    and runner.is_connected(service, action.number)
                ):
                    await asyncio.sleep(COUNT_AGAIN)

    async def _reopen_logs(self, process: Process) -> None:
        """Tells it once it is ready (the signal would end it before), and again until the files are there.

        nginx does nothing about a signal that comes just before it first waits for one, until the next.
        """
        service = process.service
        await self.until(lambda: not self._is_starting(process))
        while self._processes.get(process.pid) is process:
            runner.tell(process.pid, service.reopen_signal)
            await asyncio.sleep(ASK_AGAIN)
            if all(map(os.path.exists, service.logs)):
                return

    def _is_starting(self, process: Process) -> bool:
        rollout = self.rollouts.get(process.service.name)
        generation = rollout.generation(process.number) if rollout is not None else None
        return generation is not None and generation.child.state is State.STARTING

    async def _fence(self, service: Service, action: Action) -> None:
        """A last request to a socket that the link has left.

        Accept queues are first in, first out: once it is answered, nobody waits behind it.
        """
        if service.probe is not None:
            await hop.check_async(self._private(service, action))
        self._tell(action, Rollout.ended_fence)

    def reap(self) -> None:
        """Tells the fleet of every process that has ended."""

        def farewell(pid: int) -> str:
            return self._processes[pid].service.stop_signal if pid in self._processes else ""

        for gone in runner.reap(farewell):
            process = self._processes.pop(gone.pid, None)
            if process is None:
                continue  # an orphan that we had adopted
            process.read()
            action = Action(Act.ASK, process.service.name, process.number, process.serial)
            rollout = self.rollouts[action.service]
            reason = self._killed_for.pop(_called(action), gone.reason)
            generation = rollout.generation(action.number)
            if generation is not None and not self.stopping and rollout.wants(generation):
                self.reasons[action.service] = reason
                self._log.say(f"{_called(action)} ended: {reason}")
            self._last_words[action.service, action.number] = list(process.tail)
            runner.remove_files(process.service, action.number)
            self._tell(action, Rollout.ended, reason)
            after = self.rollouts[action.service]
            if action.number < after.count and all(each.number == after.count for each in after.generations):
                self._note(action.service, "ended")

    def _forget(self) -> None:
        """What was wished of old and said of old: a stack may be reloaded a thousand times."""
        used = {
            (name, serial)
            for name, rollout in self.rollouts.items()
            for serial in (rollout.serial, rollout.proven, *(each.serial for each in rollout.generations))
        }
        newest = {name: rollout.serial for name, rollout in self.rollouts.items()}
        self._services = {
            key: each for key, each in self._services.items() if key in used or key[1] >= newest.get(key[0], 0)
        }
        counts = {name: rollout.count for name, rollout in self.rollouts.items()}
        self._last_words = {
            key: each for key, each in self._last_words.items() if key[1] > counts.get(key[0], 0) - REMEMBERED
        }

    # Small things.

    def _note(self, name: str, what: str) -> None:
        self._timelines.setdefault(name, {}).setdefault(what, time.time())

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something beside the loop; cancelled when all has stopped."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until something is true of the generations."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            while not holds():
                changed.clear()
                await changed.wait()
        finally:
            self._waiting.discard(changed)

    def wake(self) -> None:
        """Something has changed."""
        self._changed.set()
        for each in self._waiting:
            each.set()

    def _tell(self, about: Action, event: Callable[..., Rollout], *details: Any) -> None:
        """What happened to a generation, to the fleet; the moment is added where the event wants one."""
        rollout = self.rollouts.get(about.service)
        if rollout is not None:
            if event is Rollout.became_ready:
                self._note(about.service, "ready")
            timed = () if event in (Rollout.became_current, Rollout.began_fence, Rollout.ended_fence) else (_now(),)
            first = (*details, about.number) if event is Rollout.after else (about.number, *details)
            self._fleet = self._fleet.with_rollout(about.service, event(rollout, *first, *timed))
        self.wake()

    def _generation(self, about: Action) -> Any:
        rollout = self.rollouts.get(about.service)
        return rollout.generation(about.number) if rollout is not None else None

    def _process(self, about: Action) -> Process:
        found = (about.service, about.number)
        return next(each for each in self._processes.values() if (each.service.name, each.number) == found)

    def _private(self, service: Service, about: Action) -> Probe:
        """The service's probe, aimed at one generation's own socket."""
        if service.probe is None:
            raise AssertionError(f"{service.name} has no probe")
        return replace(service.probe, address="unix:" + runner.generation_socket(service, about.number))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.say(f"a bug in stackctl: {task.exception()!r}")


def _rollout(service: Service) -> Rollout:
    return Rollout(_policy(service), service.tier, keeps=service.keep_previous)


def _policy(service: Service) -> Policy:
    return Policy(start_within=service.start_within, stop_within=service.stop_within)


def _called(action: Action) -> str:
    return f"{action.service} generation {action.number}"


def _now() -> float:
    return time.monotonic()
