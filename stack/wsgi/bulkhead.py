"""The last free thread is for quick requests: one that is known to be slow waits for another, for a moment.

Where one route takes a hundred times as long as the others (a report, a word with somebody else's server), a few of its
visitors have all threads at once, and whatever takes a millisecond waits behind them. So it does not get the last
thread that is free in the whole server, unless it has waited for as long as it takes anyway. And only one waits in each
process: more would leave a thread idle that slow requests need, where they are most of the work.

What is slow nobody has to say. It takes ten times as long as half of all requests do.

Measured where one of 20 requests sleeps for 50 ms: of 100 others the slowest takes 9 ms instead of 14 (docs/server.md).
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .alone import Alone
    from .connection import Connection
    from .pool import Share

TIMES = 10.0  # as long as half of all requests do, of the last LATELY
AT_LEAST = 0.01  # seconds
LATELY = 100  # requests
LONGEST = 1.0  # seconds that one is held
LOOK = 0.005  # seconds between two looks at whether a thread of another process is free
KNOWN = 256  # slow routes
FIRST = 128  # characters of a path that tell its route


class Bulkhead:
    """One worker's. `slow` are the routes that are, with the seconds that they took the last time.

    For what was so once it is the moment instead, less than 0: a machine that has too much to do makes any request
    slow, and others with it. So another must have begun after that moment, and be slow, too.

    `held` are the connections whose requests wait, for whoever gets them from `due`: one, or by a narrow chance two.
    """

    def __init__(self, busy: Sequence[bool] = (), alone: Alone | None = None, share: Share | None = None) -> None:
        self.slow: dict[str, float] = {}
        self.held: deque[Connection] = deque()
        self._busy = busy
        self._alone = alone
        self._share = share
        self._until = 0.0
        self._took: deque[float] = deque(maxlen=LATELY)  # seconds

    def holds(self, method: str, path: str) -> bool:
        """Whether this request shall wait: then its connection is to be `held`."""
        usual = self.slow.get(_route(method, path), 0.0)
        if usual <= 0.0 or self._alone is None or self._share is None:
            return False
        now = monotonic()
        if self._alone.serves:
            self._alone.give_up(now)
            return False
        if self.held or False in self._busy or self._share.others_free:
            return False
        self._until = now + min(usual, LONGEST)
        return True

    def due(self) -> Connection | None:
        """One that has waited for long enough, or need not: besides the thread that asks another is free."""
        if self._busy.count(False) > 1 or monotonic() >= self._until or (self._share and self._share.others_free):
            try:
                return self.held.popleft()
            except IndexError:  # another thread has it
                pass
        return None

    def ended(self, method: str, path: str, took: float, now: float) -> None:
        """A request has taken so many seconds, up to this moment."""
        self._took.append(took)
        if took < AT_LEAST and not self.slow:  # as nearly always
            return
        if took >= AT_LEAST and took >= TIMES * sorted(self._took)[len(self._took) // 2]:
            if len(self.slow) >= KNOWN:
                self.slow.clear()  # what is still asked for is found again
            route = _route(method, path)
            seen = self.slow.get(route)
            if seen is None:
                self.slow[route] = -now
            elif now - took >= -seen:
                self.slow[route] = took
        elif self.slow:
            self.slow.pop(_route(method, path), None)


def _route(method: str, path: str) -> str:
    """What requests have in common that are likely to take as long: the path, but for the numbers in it."""
    return f"{method[:FIRST]} {_numberless(path[:FIRST])}"


@lru_cache(1024)
def _numberless(path: str) -> str:
    return re.sub("[0-9]+", "0", path)
