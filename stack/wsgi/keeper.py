"""The master's part in the pool of kept-alive connections: what nobody else does, or nobody else can any more."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path

from .connection import IDLE_WITHIN
from .pool import MASTER, MESSAGE, NOBODY, READY, WANTED, Pool, Share

LOST_AFTER = 1.0  # seconds after which what a process may have taken just when it was killed is looked after


class Keeper(Share):
    """The master's part: it has all connections, serves none, and ends those that nobody else does."""

    def __init__(self, workers: int) -> None:
        super().__init__(Pool(workers), MASTER)
        self._ending: dict[int, float] = {}  # places of connections that were idle for too long, and since when
        self._searches = False  # whether a process has ended that may have taken what it had not written down yet
        self._suspects: dict[tuple[int, float], float] = {}  # what is nobody's, and not armed: places, and since when

    @property
    def told(self) -> socket.socket:
        """What is readable when there is something to `look` at."""
        return self._mailbox

    def enroll(self) -> int:
        """A number for a process that is about to be forked; it will have all that there is. -1 if there is none."""
        number = bytes(self.pool.live).find(0)
        if number >= 0:
            self.pool.live[number] = 1  # first: who looks after this sends to it, and what was sent before is here
            self.sweep()
        return number

    def gone(self, number: int) -> None:
        """The process of this number has ended: end what it had in hand."""
        if number < 0:
            return
        pool = self.pool
        pool.live[number] = pool.free[number] = 0
        self.sweep()
        for place in pool.used():
            if pool.holders[place] == number:
                self._shut(place)
        self._searches = True

    def look(self, now: float) -> None:
        """Take what is sent, end what has been idle for too long, arm what nobody serves.

        Between the kernel's giving a connection to a thread and its writing that down there is a moment, as long as
        Python takes to give it the interpreter. So what seems to be nobody's is so only after LOST_AFTER.
        """
        pool = self.pool
        self.sweep()
        ending, self._ending = self._ending, {}
        for place in list(self._has):
            if pool.holders[place] == WANTED:
                self._arm(place)
            elif pool.holders[place] != NOBODY or now < pool.since[place] + IDLE_WITHIN:
                pass
            elif now >= ending.get(place, now) + LOST_AFTER:
                self._shut(place)
            else:
                self._ending[place] = ending.get(place, now)
                self._arm(place, select.EPOLLONESHOT)
        if self._searches:
            self._search(now)

    def due(self) -> float:
        """When to `look`, at the latest, unless something is `told` before."""
        pool = self.pool
        overdue = [since + LOST_AFTER for since in (*self._ending.values(), *self._suspects.values())]
        idle = (pool.since[place] + IDLE_WITHIN for place in list(self._has) if pool.holders[place] == NOBODY)
        return min(overdue or idle, default=float("inf"))

    def end_all(self) -> None:
        """End all connections: an app's own processes may have them still."""
        for place in self.pool.used():
            self._shut(place)

    def _search(self, now: float) -> None:
        """Arm what was taken by a process that has ended before it wrote that down."""
        pool, armed = self.pool, self._armed()
        lost = [
            (place, pool.since[place])
            for place in pool.used()
            if pool.holders[place] == NOBODY and place not in armed and place not in self._ending
        ]
        self._suspects = {each: self._suspects.get(each, now) for each in lost}
        for each, since in list(self._suspects.items()):
            if now >= since + LOST_AFTER:
                self._arm(each[0])
                del self._suspects[each]
        self._searches = bool(self._suspects)

    def _armed(self) -> set[int]:
        """The places that the kernel looks at (proc_pid_fdinfo(5), of an epoll)."""
        try:
            lines = Path(f"/proc/self/fdinfo/{self.pool.epoll.fileno()}").read_text("ascii").splitlines()
        except OSError:  # nothing can be found out
            return set(self.pool.places.values())
        entries = (line.split() for line in lines if line.startswith("tfd:"))
        return {self.pool.places[int(each[1])] for each in entries if int(each[3], 16) & select.EPOLLIN}

    def _arm(self, place: int, events: int = READY) -> None:
        """Whoever is free next shall take it; or nobody."""
        pool = self.pool
        if self._has.get(place) != pool.generations[place]:
            return
        pool.holders[place] = NOBODY
        try:
            pool.epoll.modify(pool.numbers[place], events)
        except FileNotFoundError:  # who put it there was killed before
            pool.epoll.register(pool.numbers[place], events)

    def _send_again(self, place: int, number: int) -> None:
        """A process has taken what it does not have."""
        pool = self.pool
        message = MESSAGE.pack(place, pool.generations[place], self._listeners[place])
        if self._has.get(place) == pool.generations[place]:
            with contextlib.suppress(OSError):
                socket.send_fds(pool.mailboxes[number][1], [message], [pool.numbers[place]])

    def _shut(self, place: int) -> None:
        """End a connection that nobody has in hand any more."""
        if self._has.get(place) == self.pool.generations[place]:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.pool.numbers[place])) as sock:
                sock.shutdown(socket.SHUT_RDWR)
            self._end(place)
        else:  # all others let go of it; its entry may be there until then, so the place stays empty
            self.pool.generations[place] += 1
