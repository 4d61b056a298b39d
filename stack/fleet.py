"""Decides what becomes of processes: facts in, actions out.

No clock, no process, no disk: the moment is always an argument (seconds, monotonic), and whoever acts (the
supervisor's runner, the bundled server's master) tells afterwards what happened. Three layers, each on the one before:

`Child`      one process (`child.py`). Its state follows from its facts and is stored nowhere.
`Rollout`    the generations of one service: start the next one, switch to it once it is ready, retire the old one.
`Fleet`      the rollouts of a stack, in tiers: web servers start after the apps and stop before them.

Invariants, asserted by the tests at every step of a simulation:

1. The link moves only to a generation that is ready and alive.
2. A generation that serves is asked to stop only after the link left it and its fence was answered, or at a full stop.
3. A successor that fails changes nothing: what served goes on serving, and is wanted again. The refusal is remembered
   until the next wish.
4. At most one successor (a generation that never had the link) is alive at a time.
5. Restarts are spaced: the pause doubles from failure to failure up to `Policy.pause_most`. A wish or a stable run ends
   the series.
6. During a full stop nothing is spawned, and every process is gone within `stop_within` and the time a kill takes,
   counted from the turn of its tier.
7. Nothing is signalled that has ended.
8. `wake_at` is the moment at which something becomes due: never later, and never earlier.
9. A generation that is parked, or that a web server may still use by its old link, is neither fenced nor asked to stop,
   but at a full stop. At most one is parked: the last one that served before the current.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from stack.child import Act, Child, Policy, State, pause

__all__ = ["Action", "Fleet", "Generation", "Refusal", "Rollout"]

if TYPE_CHECKING:
    from dataclasses import replace
    from functools import cached_property
else:

    class cached_property:  # noqa: N801 - its name there
        """The same as that of `functools`, without the lock that this has up to Python 3.11."""

        def __init__(self, work: Any) -> None:
            self._work, self._name = work, work.__name__

        def __get__(self, owner: Any, _: type) -> Any:
            found = owner.__dict__[self._name] = self._work(owner)
            return found

    def replace(old: Any, /, **changes: Any) -> Any:
        """The same as that of `dataclasses` for what follows, in a tenth of its time: a simulation does little else."""
        facts = old.__dict__ | changes
        facts.pop("agenda", None)  # worked out from the old, as is
        facts.pop("farewell", None)
        new = object.__new__(type(old))
        object.__setattr__(new, "__dict__", facts)
        return new


class Generation(NamedTuple):
    """One running load of a service, numbered in order of spawning; `serial` names what it was asked to run."""

    number: int
    serial: int
    child: Child
    linked: bool = False  # has the link ever pointed here
    fencing: bool = False
    fenced: bool = False
    refused: bool = False  # it will not become ready, though it may still run


class Refusal(NamedTuple):
    """A serial that was wanted and did not come up."""

    serial: int
    number: int
    reason: str


class Action(NamedTuple):
    """Something for the runner to do to one generation of one service, and the reason if it is not plain."""

    act: Act
    service: str
    number: int
    serial: int
    reason: str = ""


class Due(NamedTuple):
    """Something to do to one generation from a moment on, though nothing else happens."""

    since: float
    act: Act
    number: int
    serial: int
    reason: str = ""

    def action(self, service: str) -> Action:
        """What the runner of that service is told."""
        return Action(self.act, service, self.number, self.serial, self.reason)


@dataclass(frozen=True)
class Rollout:
    """The generations of one service. `serial` is what shall run; `proven` the last one that was linked."""

    policy: Policy
    tier: int = 0
    serial: int = 1
    proven: int | None = None
    current: int | None = None  # number of the generation that the link points to, while it lives
    generations: tuple[Generation, ...] = ()
    count: int = 0  # generations spawned so far
    failures: int = 0  # ends in a row that were not asked for
    restarts: int = 0
    retry_at: float = 0.0
    refusal: Refusal | None = None
    keeps: bool = False  # the generation that served before the current one is parked, for the day it is wanted back
    previous: int | None = None  # its number, while it lives
    recalled: int | None = None  # the number of a parked generation that shall have the link again
    lingers: bool = False  # a web server may still use the link of what served before: nothing of it is retired
    stopping: bool = False

    def generation(self, number: int) -> Generation | None:
        """The generation of that number, while its process lives."""
        for each in self.generations:
            if each.number == number:
                return each
        return None

    def wants(self, generation: Generation) -> bool:
        """Whether this generation should go on running. What was refused or asked to stop is not wanted back."""
        if self.stopping or generation.refused or generation.child.asked_at is not None:
            return False
        if generation.number == self.current:
            return True
        if generation.linked:
            return not generation.fenced
        current = None if self.current is None else self.generation(self.current)
        served = self.recalled is not None or (current is not None and current.serial == self.serial)
        return generation.serial == self.serial and not served

    def wishes(self, serial: int) -> Rollout:
        """A new thing to run. What serves now serves until this is ready."""
        return replace(self, serial=serial, refusal=None, failures=0, retry_at=0.0, recalled=None)

    @property
    def parked(self) -> Generation | None:
        """The generation that can have the link back at once: the last one that served before the current."""
        kept = self.keeps or self.lingers
        found = self.generation(self.previous) if kept and self.previous is not None else None
        return found if found is not None and found.child.state is State.READY and not found.fencing else None

    def rolls_back(self) -> Rollout:
        """What is parked shall serve again, and what serves is parked for it. Without one, nothing changes."""
        if (parked := self.parked) is None:
            return self
        return replace(self.wishes(parked.serial), recalled=parked.number)

    @cached_property
    def agenda(self) -> tuple[Due, ...]:
        """All that is due now or will be, as long as nothing happens. Worked out once: it is asked more often."""
        found = []
        for each in self.generations:
            deadline = self._deadline(each)
            if deadline is not None:
                since, act = deadline
                late = act is Act.KILL and each.child.state is State.STARTING
                reason = f"not ready within {self.policy.start_within:g} s" if late else ""
                found.append(Due(since, act, each.number, each.serial, reason))
        if self._spawns:
            found.append(Due(self.retry_at, Act.SPAWN, self.count + 1, self.serial))
        return tuple(found)

    @property
    def upkeep(self) -> tuple[Due, ...]:
        """The agenda without what would be spawned."""
        return tuple([due for due in self.agenda if due.act is not Act.SPAWN])

    @cached_property
    def farewell(self) -> tuple[Due, ...]:
        """The agenda as soon as it is to stop."""
        return self.agenda if self.stopping else replace(self, stopping=True).agenda

    def actions(self, name: str, now: float) -> tuple[Action, ...]:
        """All that is due at this moment."""
        return tuple(due.action(name) for due in self.agenda if now >= due.since)

    def _deadline(self, generation: Generation) -> tuple[float, Act] | None:
        """When this generation is due for something, and for what."""
        wanted, child = self.wants(generation), generation.child
        ready_at = child.ready_at
        if ready_at is not None and not self.stopping and child.asked_at is None and child.killed_at is None:
            if wanted and (not generation.linked or generation.number == self.recalled):
                return (ready_at, Act.LINK)
            if generation.linked and not generation.fencing and not self._stays(generation):
                return (ready_at, Act.FENCE)
        return child.deadline(self.policy, wanted=wanted)

    def _stays(self, generation: Generation) -> bool:
        """Whether a generation that had the link is not to be retired now."""
        return self.lingers or generation.number == self.current or generation is self.parked

    @property
    def _spawns(self) -> bool:
        """Whether a generation is missing. A successor that was given up but still lives holds the next one back."""
        if self.stopping or self.recalled is not None or (self.refusal is not None and self.proven is None):
            return False
        for each in self.generations:
            if each.serial == self.serial if each.number == self.current else not each.linked:
                return False
        return True

    # What happened, told by whoever acted.

    def spawned(self, number: int, pid: int, now: float) -> Rollout:
        """Generation `number` of the wanted serial runs as process `pid`."""
        child = Child(pid=pid, spawned_at=now)
        generation = Generation(number=number, serial=self.serial, child=child)
        return replace(self, generations=(*self.generations, generation), count=number)

    def became_ready(self, number: int, now: float) -> Rollout:
        """It answered a probe on its own socket. Told too late (it was asked to stop meanwhile), it changes nothing."""
        found = self.generation(number)
        if found is None or found.child.state is not State.STARTING:
            return self
        return replace(self, generations=self._with(found._replace(child=found.child._replace(ready_at=now))))

    def became_current(self, number: int) -> Rollout:
        """The link points to it now: its serial is proven."""
        found = self.generation(number)
        if found is None:
            return self
        previous = self.previous if self.current is None else self.current
        return replace(
            self,
            generations=self._with(found._replace(linked=True)),
            current=number,
            proven=found.serial,
            previous=None if previous == number else previous,
            recalled=None,
        )

    def began_fence(self, number: int) -> Rollout:
        """A fence is on its way to the generation that the link has left."""
        found = self.generation(number)
        return self if found is None else replace(self, generations=self._with(found._replace(fencing=True)))

    def ended_fence(self, number: int) -> Rollout:
        """The fence was answered, or waited for as long as it may take: the generation may be retired."""
        found = self.generation(number)
        return self if found is None else replace(self, generations=self._with(found._replace(fenced=True)))

    def after(self, act: Act, number: int, now: float) -> Rollout:
        """It was asked to stop, or killed."""
        found = self.generation(number)
        if found is None:
            return self
        return replace(self, generations=self._with(found._replace(child=found.child.after(act, now))))

    def failed(self, number: int, reason: str, now: float) -> Rollout:
        """It runs but will not become ready (its probe says so): refused at once, without waiting for the timeout."""
        found = self.generation(number)
        if found is None or found.child.state is not State.STARTING or not self.wants(found):
            return self
        return self._refused(found, reason, now)

    def ended(self, number: int, reason: str, now: float) -> Rollout:
        """Its process is gone. Refused if it never was ready; restarted if it served; forgotten if it was retired."""
        found = self.generation(number)
        if found is None:
            return self
        judged = self._judged(found, reason, now)
        rest = tuple([each for each in self.generations if each.number != number])
        current, previous, recalled = [
            None if each == number else each for each in (self.current, self.previous, self.recalled)
        ]
        return replace(judged, generations=rest, current=current, previous=previous, recalled=recalled)

    def _judged(self, generation: Generation, reason: str, now: float) -> Rollout:
        """What its end means for what is wanted next."""
        if not self.wants(generation) or (generation.linked and generation.number != self.current):
            return self
        if not generation.linked:
            return self._refused(generation, reason, now)
        failures = 1 if generation.child.was_stable(self.policy, now) else self.failures + 1
        retry_at = now + pause(self.policy, failures)
        return replace(self, failures=failures, restarts=self.restarts + 1, retry_at=retry_at)

    def _refused(self, generation: Generation, reason: str, now: float) -> Rollout:
        """A successor did not come up: want again what was proven, or nothing if nothing ever was."""
        failures = self.failures + 1
        again = generation.serial == self.proven  # a restart of what once served: not refused, tried on and on
        return replace(
            self,
            generations=self._with(generation._replace(refused=True)),
            serial=self.serial if self.proven is None else self.proven,
            refusal=self.refusal if again else Refusal(generation.serial, generation.number, reason),
            failures=failures,
            restarts=self.restarts + again,
            retry_at=now + pause(self.policy, failures),
        )

    def _with(self, changed: Generation) -> tuple[Generation, ...]:
        """The generations, one of which has changed."""
        return tuple([changed if each.number == changed.number else each for each in self.generations])


@dataclass(frozen=True)
class Fleet:
    """The rollouts of a stack by service name. A tier starts once all below it are proven and stops before them."""

    rollouts: dict[str, Rollout] = field(default_factory=dict)
    stopping: bool = False

    def actions(self, now: float) -> tuple[Action, ...]:
        """All that is due at this moment."""
        return tuple([due.action(name) for name, agenda in self.agenda for due in agenda if now >= due.since])

    def wake_at(self) -> float | None:
        """The next moment at which something becomes due without anything else happening."""
        return min([due.since for _, agenda in self.agenda for due in agenda], default=None)

    @cached_property
    def agenda(self) -> tuple[tuple[str, tuple[Due, ...]], ...]:
        """What is and will be due for each service. Worked out once, like that of each rollout.

        Nothing is spawned above a tier that is not proven yet, and nothing at all in a full stop. Then those stop whose
        turn it is: the highest tier that still has a process, and above.
        """
        rollouts = self.rollouts.items()
        if self.stopping:
            turn = max([each.tier for _, each in rollouts if each.generations], default=0)
            return tuple([(name, each.farewell if each.tier >= turn else each.upkeep) for name, each in rollouts])
        unproven = [each.tier for _, each in rollouts if each.proven is None]
        if not unproven:
            return tuple([(name, each.agenda) for name, each in rollouts if each.agenda])
        held = min(unproven)
        return tuple([(name, each.upkeep if each.tier > held else each.agenda) for name, each in rollouts])

    def with_rollout(self, name: str, rollout: Rollout) -> Fleet:
        """The same stack with one service's rollout replaced."""
        return Fleet({**self.rollouts, name: rollout}, self.stopping)

    def without(self, name: str) -> Fleet:
        """The same stack without one service, whose last process is gone."""
        return Fleet({key: each for key, each in self.rollouts.items() if key != name}, self.stopping)

    def stopped(self) -> Fleet:
        """The same stack, wanted to stop."""
        return Fleet(self.rollouts, stopping=True)

    @property
    def empty(self) -> bool:
        """Whether no process is left."""
        return not any(rollout.generations for rollout in self.rollouts.values())

    @property
    def gave_up(self) -> tuple[str, Refusal] | None:
        """The service that never came up, and why, if there is one."""
        return next(
            (
                (name, rollout.refusal)
                for name, rollout in self.rollouts.items()
                if rollout.refusal is not None and rollout.proven is None
            ),
            None,
        )
