"""What can happen to a stack, played at random, with the invariants of `stack.fleet` asserted at every step.

A `World` is a stack of one to three services in tiers, its processes, and a clock that jumps to whatever comes next:
the moment that `wake_at` names, or the world's own next event. First there is a storm, in which

- a process is slow to start, never gets ready, dies while starting, or fails its probe for good;
- a process that served dies, alone or together with its successor;
- a process takes its time to stop, or is deaf to the polite request, and a killed one lingers;
- a fence takes a while;
- something new is wished, also during a rollout, also what was refused, superseded or served before;
- what is parked is called back, and what has lost its link is still used for a while;
- news of a generation that is long gone comes in.

Then either the weather calms down, the stack must come to rest with the newest wish served or refused, and is stopped;
or it is stopped in the middle of the storm. In the end all processes must be gone. Times are multiples of `TICK`, so
many things happen at the same moment, and they are told together before anything is done about them.

`FLEET_STEPS` asks for more steps, `FLEET_SEED` replays the seed that a failure names. PYTEST_DONT_REWRITE: what pytest
makes of an assertion takes some time, each of these is asked a million times, and a failure tells its story anyway.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random
from typing import NamedTuple, TypeVar

import pytest

from stack.child import Act, Policy
from stack.fleet import Action, Fleet, Rollout

T = TypeVar("T")

STEPS = int(os.environ.get("FLEET_STEPS", "1000000"))  # news told and actions obeyed, over all seeds
FRESH = int(os.environ["FLEET_SEED"])  # from the command line, or made and printed by conftest.py
SEEDS = (1, 2, 3, 4, 5, None)  # None stands for the fresh one: a test's name must not change from run to run

TICK = 0.25
KILL_TAKES = 2.5  # seconds from a kill to the end of the process, at most
FENCE_TAKES = 15.0
FOREVER = float("inf")
POLICIES = (
    Policy(),
    Policy(start_within=5.0, stop_within=2.0),
    Policy(start_within=3.0, stop_within=20.0, pause_first=0.25, pause_most=4.0, stable_after=3.0),
)
STACKS = (
    {"app": 0},
    {"app": 0, "web": 1},
    {"app": 0, "api": 0, "web": 1},
    {"app": 0, "cache": 1, "web": 5},
)


class Temper(Enum):
    """What the code behind a serial is like."""

    SOUND = "comes up and stays up"
    MOODY = "does anything in a storm, and is sound in calm weather"
    BROKEN = "never comes up, each time in another way"


TEMPERS = tuple(Temper)
AT_FIRST = (Temper.SOUND,) * 6 + (Temper.MOODY,) * 2 + (Temper.BROKEN,)


class News(Enum):
    """What happens by itself."""

    READY = "answers its probe"
    FAILED = "fails its probe for good"
    ENDED = "is gone"
    FENCED = "has answered its fence"
    DISTURBANCE = "somebody or something interferes"
    CALM = "the storm is over"
    STOP = "full stop"


class Event(NamedTuple):
    """News that will come. `order` keeps what is due at one moment in the order in which it was planned."""

    moment: float
    order: int
    news: News
    service: str = ""
    number: int = 0


@dataclass
class Process:
    """One process, as the world knows it."""

    number: int
    serial: int
    spawned_at: float
    deaf: bool
    answered_at: float | None = None
    failed: bool = False
    linked: bool = False
    fencing: bool = False
    fenced: bool = False
    asked_at: float | None = None
    killed_at: float | None = None


@dataclass
class Service:
    """One service as somebody who looks on would describe it: its processes, its link, and what was wished."""

    name: str
    tier: int
    processes: dict[int, Process] = field(default_factory=dict)  # those that live
    tempers: dict[int, Temper] = field(default_factory=dict)
    keeps: bool = False  # what served last is parked
    successor: int | None = None  # the number of the one that lives and has not had the link yet
    link: int | None = None  # the number it points to, dead or alive
    before: int | None = None  # the number it pointed to before, dead or alive
    recalled: int | None = None  # the number it shall point to again
    lingers: bool = False  # what has lost the link may not be retired
    wish: int = 1  # the newest
    wanted: int | None = 1  # what shall run: the newest wish, or what was proven before if that was refused
    refused: int | None = None  # the newest wish, if it did not come up
    proven: int | None = None
    count: int = 0
    failures: int = 0
    failed_at: float = -FOREVER
    turn_at: float | None = None  # since when it is to stop

    @property
    def parked(self) -> Process | None:
        """What is kept for a rollback, if it lives and is well."""
        found = self.processes.get(self.before or 0) if self.keeps or self.lingers else None
        return None if found is None or found.asked_at is not None or found.fencing else found


class World:
    """A stack and its runner, living through one storm."""

    def __init__(self, random: Random) -> None:
        self.random = random.random
        self.policy = self.one_of(POLICIES)
        self.services = {
            name: Service(name, tier, keeps=self.random() < 0.5) for name, tier in self.one_of(STACKS).items()
        }
        self.fleet = Fleet(
            {name: Rollout(self.policy, tier=each.tier, keeps=each.keeps) for name, each in self.services.items()}
        )
        self.now = 0.0
        self.calm = False
        self.stopping = False
        self.rest_by = FOREVER
        self.events: list[Event] = []
        self.planned = 0
        self.steps = 0
        self.seen: set[str] = set()
        self.history: deque[tuple[float, Act | News | str, str, int]] = deque(maxlen=40)
        for service in self.services.values():
            service.tempers[1] = self.one_of(AT_FIRST)

    def one_of(self, these: Sequence[T]) -> T:
        """As `random.choice` does, in half its time."""
        return these[int(self.random() * len(these))]

    # A life.

    def live(self) -> None:
        """From the first start to the end of the last process."""
        storm = self.one_of((5, 50, 400))
        self.expect(News.DISTURBANCE, within=10)
        self.expect(self.one_of((News.CALM, News.STOP)), within=storm)
        while self.pass_time():
            pass
        if not self.stopping:
            self.assert_at_rest()
            self.rest_by = FOREVER
            self.expect(News.STOP, within=10)
            while self.pass_time():
                pass
        self.assert_gone()

    def pass_time(self) -> bool:
        """Do what is due, then jump to the next moment at which something happens. False if nothing ever will."""
        self.act()
        while self.events and self.is_pointless(self.events[0]):
            heapq.heappop(self.events)
        wake_at = self.fleet.wake_at()
        moment = self.events[0].moment if self.events else FOREVER
        if wake_at is not None and wake_at < moment:
            moment = wake_at
        if moment == FOREVER:
            assert not self.fleet.actions(FOREVER), "8: something will be due, but nobody will wake for it"
            return False
        assert moment > self.now, "8: woken again at once although all that was due is done"
        assert not self.fleet.actions(moment - TICK / 2), "8: something was due before wake_at"
        self.now = moment
        assert moment != wake_at or self.fleet.actions(moment), "8: woken for nothing"
        while self.events and self.events[0].moment == moment:
            event = heapq.heappop(self.events)
            if not self.is_pointless(event):
                self.tell(event)
        if self.stopping:
            self.assert_in_time()
        return True

    def act(self) -> None:
        """What a runner does: whatever is due, until nothing is."""
        for _ in range(10):
            actions = self.fleet.actions(self.now)
            if not actions:
                self.assert_none_missing()
                return
            for action in actions:
                self.obey(action)
        raise AssertionError("what is due never ends")

    # What is done to processes, and whether it may be.

    def obey(self, action: Action) -> None:
        """Carry out one action, and say so."""
        service, rollout = self.services[action.service], self.fleet.rollouts[action.service]
        self.note(action.act, action.service, action.number)
        if action.act is Act.SPAWN:
            rollout = self.spawn(service, rollout, action)
        else:
            assert action.number in service.processes, f"7: {action} is about a process that has ended"
            process = service.processes[action.number]
            assert action.serial == process.serial
            if action.act is Act.LINK:
                rollout = self.move_link(service, rollout, process)
            elif action.act is Act.FENCE:
                rollout = self.fence(service, rollout, process)
            elif action.act is Act.ASK:
                rollout = self.ask(service, rollout, process)
            else:
                rollout = self.kill(service, rollout, process)
        self.put(service, rollout)

    def spawn(self, service: Service, rollout: Rollout, action: Action) -> Rollout:
        assert not self.stopping, "6: spawned during a full stop"
        assert service.successor is None, "4: a second successor"
        assert service.recalled is None, "4: a successor beside what is called back"
        current = service.processes.get(service.link or 0)
        assert current is None or current.serial != service.wanted, "4: spawned what serves already"
        assert action.serial == service.wanted, "3: spawned what is not wanted"
        assert self.now >= service.failed_at + self.spacing(service.failures), "5: restarted too early"
        assert self.may_start(service), "started before the tiers below were proven"
        assert action.number == service.count + 1, "a number is never used twice"
        service.count += 1
        process = Process(action.number, action.serial, self.now, deaf=self.random() < 0.15)
        service.processes[process.number] = process
        service.successor = process.number
        self.foretell(service, process)
        return rollout.spawned(process.number, 1000 + process.number, self.now)

    def move_link(self, service: Service, rollout: Rollout, process: Process) -> Rollout:
        assert process.answered_at is not None, "1: the link moved to what is not ready"
        assert process.asked_at is None, "1: the link moved to what is stopping"
        assert process.killed_at is None, "1: the link moved to what was killed"
        assert not process.failed, "1: the link moved to what failed its probe"
        assert not process.linked or process.number == service.recalled, "the link comes back to what was not called"
        assert not process.fencing, "2: the link moved to what is being retired"
        assert process.serial == service.wanted, "3: the link moved to what is not wanted"
        assert service.turn_at is None, "6: the link moved although its tier is to stop"
        served = service.processes.get(service.link or 0)
        if served is not None:
            service.before = served.number
        elif service.before == process.number:
            service.before = None
        if service.successor == process.number:
            service.successor = None
        service.link, service.proven, process.linked, service.recalled = process.number, process.serial, True, None
        return rollout.became_current(process.number)

    def fence(self, service: Service, rollout: Rollout, process: Process) -> Rollout:
        assert process.linked, "2: fenced what never served"
        assert service.link != process.number, "2: fenced what serves"
        assert not process.fencing, "2: fenced twice"
        assert not service.lingers, "9: fenced what is still used"
        assert process is not service.parked, "9: fenced what is parked"
        process.fencing = True
        self.expect(News.FENCED, service.name, process.number, within=FENCE_TAKES)
        return rollout.began_fence(process.number)

    def ask(self, service: Service, rollout: Rollout, process: Process) -> Rollout:
        assert process.asked_at is None, "asked twice"
        assert process.killed_at is None, "asked after it was killed"
        if service.turn_at is not None:
            self.seen.add("asked in a full stop")
        elif process.linked:
            assert process is not service.parked, "9: asked what is parked to stop"
            assert service.link != process.number, "2: asked what serves to stop"
            assert process.fenced, "2: asked to stop before the fence was answered"
            self.seen.add("asked once fenced")
        else:
            assert process.failed or self.is_superseded(service, process), "3: asked to stop what is wanted"
            self.seen.add("asked as failed" if process.failed else "asked as superseded")
        process.asked_at = self.now
        if not process.deaf:
            self.expect(News.ENDED, service.name, process.number, within=self.policy.stop_within * 1.2)
        return rollout.after(Act.ASK, process.number, self.now)

    def kill(self, service: Service, rollout: Rollout, process: Process) -> Rollout:
        if process.killed_at is not None:
            assert self.now >= process.killed_at + self.policy.kill_again_after
            self.seen.add("killed again")
        elif process.asked_at is not None:
            assert self.now >= process.asked_at + self.policy.stop_within, "killed before it had its time to stop"
            self.seen.add("killed as it did not stop")
        else:
            assert process.answered_at is None, "2: killed what is ready"
            assert self.now >= process.spawned_at + self.policy.start_within, "killed before it had its time to start"
            self.seen.add("killed as it was not ready in time")
        if process.killed_at is None:
            self.expect(News.ENDED, service.name, process.number, within=KILL_TAKES)
        process.killed_at = self.now
        return rollout.after(Act.KILL, process.number, self.now)

    def spacing(self, failures: int) -> float:
        """Seconds between the last failure and the next spawn, at least."""
        return min(self.policy.pause_most, self.policy.pause_first * 2 ** (failures - 2)) if failures > 1 else 0.0

    # What happens to processes.

    def foretell(self, service: Service, process: Process) -> None:
        """The fate of a new process, as far as nobody interferes."""
        temper = service.tempers[process.serial]
        name, number, start_within = service.name, process.number, self.policy.start_within
        fate = "comes up"
        if temper is Temper.BROKEN:
            fate = self.one_of(("dies", "fails", "hangs"))
        elif temper is Temper.MOODY and not self.calm:
            fate = self.one_of(("comes up", "comes up", "is slow", "dies", "fails", "hangs"))
        self.seen.add(f"{fate} at start")
        if fate == "dies":
            self.expect(News.ENDED, name, number, within=start_within)
        elif fate == "fails":
            self.expect(News.FAILED, name, number, within=start_within)
        elif fate != "hangs":
            self.expect(News.READY, name, number, within=start_within * 1.5 if fate == "is slow" else 2.0)
        if not self.calm and self.random() < 0.5:
            self.expect(News.ENDED, name, number, within=self.one_of((1, 10, 100)))

    def tell(self, event: Event) -> None:
        """Let an event happen, and tell the fleet of it."""
        if event.service:
            service = self.services[event.service]
            self.put(service, self.happen(service, service.processes[event.number], event.news))
        elif event.news is News.DISTURBANCE:
            self.disturb()
        elif event.news is News.CALM:
            self.calm = True
            longest = self.policy.start_within + self.policy.stop_within + KILL_TAKES + self.policy.pause_most
            self.rest_by = self.now + 2 * len(self.services) * longest
            self.note(event.news)
            for each in self.services.values():
                if each.lingers:
                    self.linger(each)
        else:
            self.calm = self.stopping = True
            self.note(event.news)
            self.fleet = self.fleet.stopped()
            self.call_turns()

    def happen(self, service: Service, process: Process, news: News) -> Rollout:
        """The same for the news of a process that lives."""
        rollout, number = self.fleet.rollouts[service.name], process.number
        self.note(news, service.name, number)
        if news is News.READY:
            process.answered_at = self.now
            return rollout.became_ready(number, self.now)
        if news is News.FENCED:
            process.fenced = True
            return rollout.ended_fence(number)
        if news is News.FAILED:
            if process.asked_at is None and process.killed_at is None and not self.is_superseded(service, process):
                process.failed = True
                self.refuse(service, process)
            return rollout.failed(number, news.value, self.now)
        del service.processes[number]
        if number == service.successor:
            service.successor = None
        if number == service.recalled:
            service.recalled = None
        self.bury(service, process)
        return rollout.ended(number, news.value, self.now)

    def bury(self, service: Service, process: Process) -> None:
        """What an end means to somebody who looks on."""
        if process.asked_at is not None or process.failed or self.is_superseded(service, process):
            self.seen.add("ended as it should")
        elif not process.linked:
            self.refuse(service, process)
        elif service.link == process.number:
            assert process.answered_at is not None
            stable = self.now - process.answered_at >= self.policy.stable_after
            service.failures, service.failed_at = 1 if stable else service.failures + 1, self.now
            self.seen.add("died serving, after long" if stable else "died serving, soon")
        elif process.fencing:
            self.seen.add("died behind its fence")
        else:
            self.seen.add("died parked or still used")

    def refuse(self, service: Service, process: Process) -> None:
        """A successor did not come up."""
        service.failures, service.failed_at = service.failures + 1, self.now
        if process.serial == service.proven:
            self.seen.add("did not come up again")
        else:
            service.refused, service.wanted = service.wish, service.proven
            self.seen.add("refused" if service.proven else "refused at first start")

    def is_pointless(self, event: Event) -> bool:
        """Whether an event that was planned does not happen: its process is gone, or the weather is too calm for it."""
        if not event.service:
            return event.news is News.DISTURBANCE and self.calm
        service = self.services[event.service]
        process = service.processes.get(event.number)
        if process is None or not self.calm or event.news is not News.ENDED:
            return process is None
        by_chance = process.asked_at is None and process.killed_at is None
        return by_chance and service.tempers[process.serial] is not Temper.BROKEN

    def is_superseded(self, service: Service, process: Process) -> bool:
        """Whether it never served, and something else is to: of another serial, or of the same but there already."""
        serving = service.processes.get(service.recalled or service.link or 0)
        there = service.recalled is not None or (serving is not None and serving.serial == service.wanted)
        return not process.linked and (process.serial != service.wanted or there)

    # What people do.

    def disturb(self) -> None:
        """Something new is wished, or late news arrives; and it will not be the last time in this storm."""
        service = self.one_of(tuple(self.services.values()))
        dice = self.random()
        if dice < 0.2:
            self.tell_stale_news(service)
        elif dice < 0.3:
            self.linger(service)
        elif dice < 0.5:
            self.roll_back(service)
        else:
            self.wish(service)
        self.expect(News.DISTURBANCE, within=self.one_of((2, 20, 60)))

    def wish(self, service: Service) -> None:
        """Mostly something new; sometimes what is known already."""
        known = len(service.tempers)
        serial = known + 1 if self.random() < 0.7 else self.one_of(range(1, known + 1))
        if serial > known:
            service.tempers[serial] = self.one_of(TEMPERS)
        if service.successor is not None:
            self.seen.add("wished during a rollout")
        self.note(f"wishes {serial} ({service.tempers[serial].name})", service.name)
        service.wish = service.wanted = serial
        service.refused = None
        service.failures, service.failed_at, service.recalled = 0, -FOREVER, None
        self.put(service, self.fleet.rollouts[service.name].wishes(serial))

    def roll_back(self, service: Service) -> None:
        """What is parked is wanted again; it is there, so there is nothing to wait for."""
        rollout, parked = self.fleet.rollouts[service.name], service.parked
        self.note("rolls back", service.name, parked.number if parked else 0)
        if parked is None:
            self.seen.add("nothing to roll back to")
            assert rollout.rolls_back() is rollout
            return
        self.seen.add("rolled back")
        service.wish = service.wanted = parked.serial
        service.refused, service.recalled = None, parked.number
        service.failures, service.failed_at = 0, -FOREVER
        self.put(service, rollout.rolls_back())

    def linger(self, service: Service) -> None:
        """A web server goes on using the old link, or has left it at last."""
        service.lingers = not service.lingers
        self.note("lingers" if service.lingers else "lingers no more", service.name)
        self.put(service, replace(self.fleet.rollouts[service.name], lingers=service.lingers))

    def tell_stale_news(self, service: Service) -> None:
        rollout, number = self.fleet.rollouts[service.name], int(self.random() * (service.count + 3))
        if number not in service.processes:
            self.seen.add("stale news")
            assert rollout.became_ready(number, self.now) is rollout
            assert rollout.failed(number, "late", self.now) is rollout
            assert rollout.ended(number, "late", self.now) is rollout
            assert rollout.ended_fence(number) is rollout

    # What must hold.

    def put(self, service: Service, rollout: Rollout) -> None:
        """One step is done: the fleet is told, and what it thinks must be what is."""
        self.fleet = self.fleet.with_rollout(service.name, rollout)
        if self.stopping:
            self.call_turns()
        living, thought, parked = service.processes, rollout.parked, service.parked
        assert [each.number for each in rollout.generations] == list(living)
        assert [each.number for each in living.values() if not each.linked] in ([], [service.successor]), (
            "4: two successors"
        )
        assert rollout.current == (service.link if service.link in living else None), "it misjudges what serves"
        assert rollout.proven == service.proven
        misjudged = "9: it misjudges what is parked"
        assert (thought.number if thought else None) == (parked.number if parked else None), misjudged
        assert rollout.recalled == service.recalled
        assert (rollout.refusal.serial if rollout.refusal else None) == service.refused, "3: a refusal forgotten"
        assert rollout.serial == (service.wish if service.wanted is None else service.wanted), "3: a wish forgotten"
        assert rollout.failures == service.failures, "5: failures miscounted"

    def call_turns(self) -> None:
        """In a full stop: note since when each service is to stop."""
        turn = max((each.tier for each in self.services.values() if each.processes), default=0)
        for service in self.services.values():
            if service.turn_at is None and service.tier >= turn:
                service.turn_at = self.now

    def may_start(self, service: Service) -> bool:
        return all(other.proven is not None for other in self.services.values() if other.tier < service.tier)

    def assert_none_missing(self) -> None:
        """All that was due is done: whoever is not started has a successor, a pause or a tier below to wait for."""
        if self.stopping:
            return
        for service in self.services.values():
            serving, wanted = service.processes.get(service.link or 0), service.wanted
            if wanted is None or (serving is not None and serving.serial == wanted):
                continue
            if service.successor is None and self.may_start(service):
                assert self.now < service.failed_at + self.spacing(service.failures), "5: restarted too late"

    def assert_in_time(self) -> None:
        patience = self.policy.stop_within + KILL_TAKES
        for service in self.services.values():
            if service.turn_at is not None and service.processes:
                assert self.now <= service.turn_at + patience, f"6: {service.name} does not end"

    def assert_at_rest(self) -> None:
        """The storm is over: what is wished is served, or refused and the one before it served again."""
        gave_up = [each for each in self.services.values() if each.refused is not None and each.proven is None]
        assert (self.fleet.gave_up is not None) == bool(gave_up)
        for service in self.services.values():
            lowest = min((each.tier for each in gave_up), default=service.tier)
            if service in gave_up:
                assert not service.processes
                self.seen.add("gave up")
            elif service.proven is None:
                assert service.tier > lowest, f"{service.name} was never started"
                assert service.count == 0
            elif service.tier <= lowest or service.processes:
                resting = {service.link, service.parked.number if service.parked else service.link}
                assert set(service.processes) == resting, f"{service.name} does not come to rest"
                assert service.processes[service.link or 0].serial == service.wanted
                self.seen.add("rests with its wish refused" if service.refused else "rests with its wish served")

    def assert_gone(self) -> None:
        assert self.fleet.empty
        assert not any(service.processes for service in self.services.values())
        assert self.fleet.wake_at() is None

    # How it is written down.

    def expect(self, news: News, service: str = "", number: int = 0, *, within: float) -> None:
        """Plan an event for some moment from now on."""
        moment = self.now + TICK * (1 + int(self.random() * within / TICK))
        self.planned += 1
        heapq.heappush(self.events, Event(moment, self.planned, news, service, number))

    def note(self, what: Act | News | str, service: str = "", number: int = 0) -> None:
        assert self.now <= self.rest_by, "the weather is calm, but the stack does not come to rest"
        self.steps += 1
        self.history.append((self.now, what, service, number))

    def story(self) -> str:
        told = (
            (now, name, number, what if isinstance(what, str) else what.value)
            for now, what, name, number in self.history
        )
        return "\n".join(f"{now:9.2f}  {name:5} {number or '':>3}  {what}" for now, name, number, what in told)


EVERYTHING = {
    "asked as failed",
    "asked as superseded",
    "asked in a full stop",
    "asked once fenced",
    "comes up at start",
    "did not come up again",
    "died behind its fence",
    "died parked or still used",
    "died serving, after long",
    "died serving, soon",
    "dies at start",
    "ended as it should",
    "fails at start",
    "gave up",
    "hangs at start",
    "is slow at start",
    "killed again",
    "killed as it did not stop",
    "killed as it was not ready in time",
    "nothing to roll back to",
    "refused",
    "refused at first start",
    "rests with its wish refused",
    "rests with its wish served",
    "rolled back",
    "stale news",
    "wished during a rollout",
}


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: "fresh" if seed is None else f"seed-{seed}")
def test_whatever_happens_the_invariants_hold_and_the_stack_comes_to_rest(seed: int | None) -> None:
    number = FRESH if seed is None else seed
    random = Random(number)
    seen: set[str] = set()
    steps = lives = 0
    while steps < STEPS / len(SEEDS):
        world = World(random)
        lives += 1
        try:
            world.live()
        except Exception as error:
            error.add_note(f"FLEET_SEED={number}, life {lives}, {world.policy}:\n{world.story()}")
            raise
        steps += world.steps
        seen |= world.seen
    assert seen == EVERYTHING, f"FLEET_SEED={number}: what can happen did, and is listed"
