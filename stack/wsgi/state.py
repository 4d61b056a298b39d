"""What a worker shows of itself: numbers in memory that it shares with the master, who tells them to whoever asks.

Each thread writes its own numbers and no other's, without a lock, and nobody waits for a reader. A reader may see one
number a moment before the next; none goes backwards. Moments are monotonic, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import socket
import struct
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from . import address

# The numbers of a thread, by their places.
REQUESTS, ERRORS, BYTES, QUEUED, UNTIMED, ENDED, TOOK = range(7)
WIDTH = 7
TEXT = 160  # bytes of a request's line
LINE = struct.Struct(f"{TEXT}s")
RECENT = 10  # looks, a second each, over which the rate is told
TELL_WITHIN = 1.0  # seconds that the master waits for a reader who takes nothing
NONSENSE = 3600.0  # seconds in the queue: the moment was told in another unit, or is none
LONGEST = 1 << 24  # bytes that a reader takes from somebody who may be another user's app

PAGE = mmap.PAGESIZE


class Tally:
    """One worker's numbers. Made before the fork, so that both sides have them."""

    def __init__(self, threads: int) -> None:
        numbers, lines = 8 * threads * (1 + WIDTH), TEXT * threads
        self._memory = memoryview(mmap.mmap(-1, numbers + lines + 8))
        self.threads = threads
        self.progress = self._memory[: 8 * threads].cast("d")
        """For each thread, since when its request has not got on: see `connection.Service`."""
        self._numbers = self._memory[8 * threads : numbers].cast("d")
        self._lines = self._memory[numbers : numbers + lines]
        self._rate = self._memory[numbers + lines :].cast("d")

    @property
    def rate(self) -> float:
        """Requests a second, of late: the worker's main thread works it out."""
        return self._rate[0]

    @rate.setter
    def rate(self, value: float) -> None:
        self._rate[0] = value

    def begins(self, thread: int, line: bytes) -> None:
        """A request begins, with this line.

        It may go on, as bytes do that begin with it: it costs less to part them when somebody looks.
        """
        LINE.pack_into(self._lines, thread * TEXT, line)

    def ends(self, thread: int, failed: bool, size: int, now: float, took: float, taken: str | None) -> None:  # noqa: FBT001 - by place: half the time
        """It has ended, at this moment, after so many seconds; the web server had `taken` it then, if it tells."""
        numbers, at = self._numbers, thread * WIDTH
        numbers[at] += 1
        numbers[at + BYTES] += size
        numbers[at + ENDED] = now
        numbers[at + TOOK] += took
        if failed:
            numbers[at + ERRORS] += 1
        if taken is None:
            numbers[at + UNTIMED] += 1
            return
        try:
            moment = float(taken)
        except ValueError:
            moment = _moment(taken)
        queued = time.time() - took - moment
        if not queued < NONSENSE:
            numbers[at + UNTIMED] += 1
        elif queued > 0.0:
            numbers[at + QUEUED] += queued

    def total(self, which: int) -> float:
        """The sum of one number over all threads."""
        return sum(self._numbers[which::WIDTH])

    @property
    def busy(self) -> int:
        """How many threads have a request, and do not wait for its peer."""
        return sum(since > 0 for since in self.progress)

    def shown(self, now: float) -> dict[str, Any]:
        """All of it, for JSON."""
        ended = list(self._numbers[ENDED::WIDTH])
        last = max(range(self.threads), key=ended.__getitem__)
        timed = self.total(REQUESTS) - self.total(UNTIMED)
        current = [
            {"request": self._line(each), "seconds": round(max(0.0, now - since), 3)}
            for each, since in enumerate(self.progress)
            if since
        ]
        return {
            "busy": len(current),
            "requests": int(self.total(REQUESTS)),
            "requests_per_second": round(self.rate, 2),
            "errors": int(self.total(ERRORS)),
            "bytes": int(self.total(BYTES)),
            "queue_seconds": round(self.total(QUEUED) / timed, 6) if timed > 0 else None,
            "current": current,
            "last": {"request": self._line(last), "seconds_ago": round(max(0.0, now - ended[last]), 3)}
            if ended[last]
            else None,
        }

    def overdue(self, now: float, timeout: float) -> list[str]:
        """The requests that have not got on for so long, as far as their lines are known."""
        found = [self._line(each) for each, since in enumerate(self.progress) if since and now - since >= timeout]
        return [each for each in found if each.strip()]

    def _line(self, thread: int) -> str:
        """Method and path. Not the query: who may see the state need not see what is in it."""
        data: bytes = LINE.unpack_from(self._lines, thread * TEXT)[0]
        method, _, target = data.lstrip(b"\r\n").partition(b"\r")[0].rstrip(b"\0").partition(b" ")
        path = target.partition(b" ")[0].partition(b"?")[0]
        return (method + b" " + unquote_to_bytes(path)).decode("utf-8", "replace")


def _moment(taken: str) -> float:
    """The moment in "t=1700000000.123", as others have their web servers tell it; else not a number."""
    try:
        return float(taken.removeprefix("t="))
    except ValueError:
        return float("nan")


class Teller:
    """A unix socket of the owner's, on which whoever connects is told the state, as JSON, to its end.

    Raises:
        AddressError: it cannot be bound.
    """

    def __init__(self, path: str) -> None:
        self.listener = address.listen(address.parse(f"unix:{path}"), backlog=16)

    def fileno(self) -> int:
        """For select()."""
        return self.listener.socket.fileno()

    def tell(self, state: dict[str, Any]) -> None:
        """Answer one who has connected."""
        with contextlib.suppress(OSError):
            reader, _ = self.listener.socket.accept()
            with reader:
                reader.settimeout(TELL_WITHIN)
                reader.sendall(json.dumps(state).encode() + b"\n")

    def close(self) -> None:
        """Leave it, and take it from the disk."""
        address.remove(self.listener)
        self.listener.socket.close()


def read(path: str) -> dict[str, Any]:
    """The state that a server tells at this path.

    Raises:
        OSError: nobody tells it there.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5 * TELL_WITHIN)
        sock.connect(path)
        with sock.makefile("rb") as stream:
            return json.loads(stream.read(LONGEST))  # type: ignore[no-any-return]


def resident(pid: int) -> int:
    """Bytes of memory that a process has, what it shares with others included; 0 if it is gone. Cheap."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def proportional(pid: int) -> int | None:
    """The same, but of what is shared its part only; None if the kernel does not tell. The kernel walks the pages."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None
