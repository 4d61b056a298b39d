"""Whether one thread of a worker serves alone: as long as its requests compute, and wait for nothing.

A second thread gets nothing done then, for they share one interpreter. But each time that one lets go of it for a
moment, to receive or to send, another takes it, and both wait for each other: a fifth of the time of a small request.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .state import TOOK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Service

SLOW = 0.004  # seconds in a request from which on it may be slow: sooner, it is likely to wait for a CPU
SLEEPS_FOR = 0.002  # seconds that a request waits for something else than a CPU, until the others help
COMPUTES_FOR = 0.02  # seconds of CPU that one takes, until then
LOOK = 0.01  # seconds between two looks at the one that serves, at first: every 2 to 5 ms, they took 6 % of a request
LOOK_AT_LAST = 0.05  # when it has served alone for long: of a small Flask request, 2 to 5 % less
JUDGE = 0.1  # seconds over which it is judged whether one thread serves as much as all, at first
JUDGE_AT_LAST = 0.5  # when it has for long; who looks took 1.2 us of a small Flask request, and so takes 0.7
PROVEN = 20  # times so long as it waits until it looks, or judges, again, it has served alone
WORTH = 0.2  # of the time that threads work, from which on it is worth trying
WAITS = 0.2  # of the time that requests wait for something else than a CPU, from which on others had better help
TRY_AGAIN = 0.25  # seconds until it is tried again; twice as long after each time that it was not so
TRY_AT_LAST = 600.0
SCHEDULE = "/proc/self/task/{}/schedstat"
PEER = -1.0  # instead of the moment since when a request has not got on: it is its peer who does not


class Alone:
    """`serves`: the first thread does so alone. All but `wait` is for the main thread."""

    def __init__(self, service: Service) -> None:
        self.serves = False
        self._service = service
        self._gate = threading.Semaphore(0)  # where the others wait meanwhile
        self._threads: Sequence[threading.Thread] = ()
        self._schedules: Sequence[int] = ()  # descriptors of what the kernel tells of each; of none if it does not
        self._judged_at = self._worked = self._took = 0.0
        self._began = self._try_at = 0.0
        self._try_after = TRY_AGAIN
        self._slow = self._seen_at = 0.0  # since when there is a slow request, and when it was first seen
        self._seen = (0.0, 0.0)

    def wait(self) -> None:
        """For the threads but the first: return when there is work for them."""
        self._gate.acquire()

    def begin(self, threads: Sequence[threading.Thread]) -> None:
        """These are what is judged; they run."""
        self._threads = threads
        with contextlib.suppress(OSError):  # the kernel does not tell
            self._schedules = [os.open(SCHEDULE.format(each.native_id), os.O_RDONLY | os.O_CLOEXEC) for each in threads]

    def judge(self, now: float) -> None:
        """See how the requests of all threads are."""
        if self.serves and self._needs_help(now):
            self.give_up(now)
        if len(self._schedules) < 2 or now < self._judged_at + self._seldom(now, JUDGE, JUDGE_AT_LAST):
            return
        worked = sum(sum(_scheduled(each)) for each in self._schedules)
        took = self._service.tally.total(TOOK) if self._service.tally is not None else 0.0
        work, waiting = worked - self._worked, took - self._took - (worked - self._worked)
        seconds = now - self._judged_at
        self._judged_at, self._worked, self._took = now, worked, took
        if not self.serves:
            self.serves = work >= WORTH * seconds and now >= self._try_at and not self._service.draining
            self._began = now
        elif waiting >= WAITS * seconds:
            self.give_up(now)
        else:
            self._try_after = TRY_AGAIN

    def look_within(self, now: float) -> float:
        """Seconds to the next look at the one that serves: soon if it may be slow; else later, the longer it has."""
        if 0.0 < self._service.progress[0] <= now - SLOW:
            return SLEEPS_FOR
        return self._seldom(now, LOOK, LOOK_AT_LAST)

    def _seldom(self, now: float, first: float, last: float) -> float:
        """Seconds to wait: more, the longer one has served alone."""
        return min(max(first, (now - self._began) / PROVEN), last) if self.serves else first

    def end(self) -> None:
        """All serve."""
        if self.serves:
            self.serves = False
            for _ in self._threads:
                self._gate.release()

    def give_up(self, now: float) -> None:
        """One thread is not enough. For any thread: what comes of two at once is that it is tried again later."""
        self.end()
        self._try_at = now + self._try_after
        self._try_after = min(2 * self._try_after, TRY_AT_LAST)

    def _needs_help(self, now: float) -> bool:
        """Whether the request of the one that serves has better not have all others behind it.

        Not so if it only waits for a CPU, as any request does where there are too few. Told by what the kernel says of
        it between two looks: one that computes does not run at the moment of a look, either, for who looks has the
        interpreter.
        """
        began, *others = self._service.progress
        shares = any(others) and now < self._began + COMPUTES_FOR  # the interpreter, with what they had in hand before
        if not began and self._service.current[0] is not None:
            began = PEER
        elif not began or now < began + SLOW or shares:
            self._slow = 0.0
            return False
        runs = _runs(self._threads[0])  # first: what is told of one that runs may be as old as a tick of the clock
        on_cpu, waited = _scheduled(self._schedules[0])
        if began != self._slow:
            self._slow, self._seen_at, self._seen = began, now, (on_cpu, waited)
            return False
        computed = on_cpu - self._seen[0]
        slept = now - self._seen_at - computed - (waited - self._seen[1])
        return computed >= COMPUTES_FOR or (slept >= SLEEPS_FOR and not runs)


def _scheduled(schedule: int) -> tuple[float, float]:
    """Seconds that a thread has been on a CPU, and that it has waited for one.

    Source: the kernel's scheduler/sched-stats, of /proc/PID/schedstat.
    """
    # Kept open: at each system call who looks lets go of the interpreter, and it takes a dozen tries to have it again.
    with contextlib.suppress(OSError, ValueError):  # the app has closed it
        on_cpu, waited, _ = map(int, os.pread(schedule, 128, 0).split())
        return on_cpu / 1e9, waited / 1e9
    return 0.0, 0.0


def _runs(thread: threading.Thread) -> bool:
    """Whether it is on a CPU, or waits for one (proc_pid_stat(5), the state)."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/self/task/{thread.native_id}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"R"
    return False
