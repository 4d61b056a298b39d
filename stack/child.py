"""Decides what becomes of one process: facts in, what is due out. The fleet's lowest layer (`fleet.py`).

Standard library only, Python >= 3.10, and as little of it as will do: the bundled server's master keeps its workers by
it, inside the project's interpreter.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Act", "Child", "Policy", "State", "pause"]


class State(Enum):
    """What a process is doing, as far as its facts tell."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    KILLED = "killed"


class Act(Enum):
    """What is to be done to a process or generation."""

    SPAWN = "spawn"
    ASK = "ask to stop"
    KILL = "kill"
    LINK = "move the link to"
    FENCE = "fence"


class Policy(NamedTuple):
    """How patient to be with a process. All in seconds."""

    start_within: float = 30.0
    stop_within: float = 30.0
    kill_again_after: float = 1.0
    pause_first: float = 0.5
    pause_most: float = 15.0
    stable_after: float = 10.0


class Child(NamedTuple):
    """One process and what is known of it. Times are None until the thing has happened."""

    pid: int | None = None
    spawned_at: float | None = None
    ready_at: float | None = None
    asked_at: float | None = None
    killed_at: float | None = None

    @property
    def state(self) -> State:
        """The latest thing that happened decides."""
        if self.pid is None:
            return State.ABSENT
        if self.killed_at is not None:
            return State.KILLED
        if self.asked_at is not None:
            return State.STOPPING
        return State.STARTING if self.ready_at is None else State.READY

    def deadline(self, policy: Policy, *, wanted: bool) -> tuple[float, Act] | None:
        """When this process is due for something, and for what; None if nothing is due however long one waits.

        ========  =================================  ==================
        state     wanted                             not wanted
        ========  =================================  ==================
        absent    (whoever keeps it decides)         nothing
        starting  kill after start_within            ask at once
        ready     nothing                            ask at once
        stopping  kill after stop_within             the same
        killed    kill again after kill_again_after  the same
        ========  =================================  ==================
        """
        if self.killed_at is not None:
            return (self.killed_at + policy.kill_again_after, Act.KILL)
        if self.asked_at is not None:
            return (self.asked_at + policy.stop_within, Act.KILL)
        if self.spawned_at is None:
            return None
        if not wanted:
            return (self.spawned_at, Act.ASK)
        return (self.spawned_at + policy.start_within, Act.KILL) if self.ready_at is None else None

    def due(self, policy: Policy, now: float, *, wanted: bool) -> Act | None:
        """What to do to this process at this moment, if anything."""
        deadline = self.deadline(policy, wanted=wanted)
        return deadline[1] if deadline is not None and now >= deadline[0] else None

    def after(self, act: Act, now: float) -> Child:
        """The facts once it was asked to stop, or killed."""
        if act is Act.ASK:
            return self._replace(asked_at=now)
        if act is Act.KILL:
            return self._replace(killed_at=now)
        raise ValueError(f"a process is asked or killed, not: {act.value}")

    def was_stable(self, policy: Policy, now: float) -> bool:
        """Whether it was ready for long enough that an end now is not part of a crash loop."""
        return self.ready_at is not None and now - self.ready_at >= policy.stable_after


def pause(policy: Policy, failures: int) -> float:
    """Seconds to wait before the next spawn after `failures` in a row: none at first, then doubling up to a limit."""
    if failures <= 1:
        return 0.0
    return min(policy.pause_most, policy.pause_first * 2.0 ** min(failures - 2, 32))
