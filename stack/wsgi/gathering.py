"""Pieces of answers that come faster than it is worth sending each: they go out together, a moment later.

An app that streams may yield a line at a time, thousands in a row, and each would be a system call here and several in
the web server. So a piece that comes within SOON of the one before is kept, and sent with those that follow, or by the
main thread once SOON has passed: no piece waits for what the app makes next, and that is what PEP 3333 asks for
("Buffering and Streaming"). One that comes later than that, as an event's does, is sent at once.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = 0.001  # seconds
MOST = 32768  # bytes of pieces that wait for nothing
FULL = 0.01  # seconds until it is tried again where the peer has no room


class Pieces:
    """What the answer on one connection has gathered.

    `send` sends all that it is given, after what `take` returns; `send_some` what there is room for at once, and tells
    how many bytes that was. `frame` is what becomes of the pieces on the wire. All but `flush` is for the thread of the
    connection's request.
    """

    def __init__(self, gathering: Gathering, send: Callable[[bytes], None], send_some: Callable[[bytes], int]) -> None:
        self.frame: Callable[[bytes], bytes] = bytes
        self._gathering = gathering
        self._send = send
        self._send_some = send_some
        self._pieces: deque[bytes] = deque()
        self._size = 0  # bytes
        self._framed = b""  # what is left of those for which there was no room
        self._watched = False  # whether the main thread looks at what is added
        self._sent_at = 0.0
        self._lock = threading.Lock()  # of the order in which they are sent

    def add(self, data: bytes) -> None:
        """Send it, soon."""
        if len(data) >= MOST or (not self._watched and monotonic() - self._sent_at >= SOON):
            self._send(self.frame(data))
            self._sent_at = monotonic()
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= MOST or self._framed:  # its peer takes it slowly, or has gone: this thread is to find out
            self._send(b"")
        elif not self._watched:  # any more: `flush` says so before it looks for pieces
            self._watched = True
            self._gathering.watch(self)

    def take(self) -> bytes:
        """All of it, as it goes on the wire, to be sent now."""
        with self._lock:
            return self._all()

    def flush(self, now: float) -> float:
        """Send what there is, and wait for nobody; when to do so again, or infinity."""
        with self._lock:
            self._watched = False
            data = self._all()
            if not data:
                return float("inf")
            self._watched = True
            try:
                self._framed = data[self._send_some(data) :]
            except BlockingIOError:
                self._framed = data
            except OSError:  # as `add` will find out
                self._framed = data
                return float("inf")
            return now + (FULL if self._framed else SOON)

    def _all(self) -> bytes:
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        self._size = 0
        framed, self._framed = self._framed, b""
        return framed + self.frame(b"".join(pieces)) if pieces else framed


class Gathering:
    """All that has been gathered in one worker. All but `watch` is for the main thread."""

    def __init__(self) -> None:
        self.call: Callable[[], None] = _nobody  # has the main thread `flush`
        self._new: list[Pieces] = []
        self._due: dict[Pieces, float] = {}

    def watch(self, pieces: Pieces) -> None:
        """Have the main thread look at them from now on."""
        self._new.append(pieces)
        self.call()

    def within(self, now: float) -> float:
        """Seconds until the next `flush`."""
        return max(0.0, min(self._due.values()) - now) if self._due else float("inf")

    def flush(self, now: float) -> None:
        """Send what has been kept for long enough."""
        while self._new:
            self._due[self._new.pop()] = now + SOON
        for pieces in [each for each, due in self._due.items() if now >= due]:
            self._due[pieces] = pieces.flush(now)
            if self._due[pieces] == float("inf"):
                del self._due[pieces]


def _nobody() -> None:
    """Where nobody looks, all is sent in the end."""
