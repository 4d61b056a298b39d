"""Visitors of a site: one request and what is wrong with its answer; several who ask round and round."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException, IncompleteRead
from types import TracebackType
from typing import Self

from stack.config import AUTO, Smoke

__all__ = ["AGENT", "Came", "Judge", "Load", "Request", "Visit", "Visitors", "ask", "failure", "request", "wrong"]

AGENT = "stackctl-visitor"  # by which the access log tells them from whoever asks once
KEPT = 4  # visitors who keep their connection
FRESH = (
    2  # and who come anew each time; all of them fewer than the eight requests that the smallest default stack takes
)
SHOWN = 5  # failures that are told in full, each once
PIECE = 65536
PAUSE = 0.02  # seconds between two requests of a visitor: this is to notice what is lost, not to keep the machine busy
BREATH = 0.05  # seconds between a failure and the next try: a dead site is not to be asked a million times
WRONG = (OSError, HTTPException)
TCP_CLOSE = 7  # the state of a connection that was reset; see linux/tcp.h for the layout of tcp_info


@dataclass(frozen=True, slots=True)
class Request:
    """A request to `address` (HOST:PORT) for the site that answers to `host`; `within` seconds for all of it."""

    method: str
    path: str
    address: str
    host: str
    within: float
    body: str = ""
    content_type: str = ""
    agent: str = "stackctl"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Came:
    """What came back. Header names are in small letters; one that came twice is joined with a comma."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


Judge = Callable[[Came], str]
"""What is wrong with an answer; "" if nothing is."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a visitor's: in which phase, from when to when (seconds since the epoch), and how it went.

    `seconds` until the answer, None if there was none; `problem` is what was wrong with it; `again`, whether it had to
    be asked for twice.
    """

    asked: Request
    phase: str
    began: float
    ended: float
    seconds: float | None
    problem: str
    again: bool


@dataclass(frozen=True, slots=True)
class Load:
    """What visitors met: how many requests, how many failed and the first of these in words, how long answers took.

    `again` is how many were asked twice: the connection that had been kept was closed before anybody read them.
    `seconds` is sorted.
    """

    requests: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()
    seconds: Sequence[float] = field(default=(), repr=False)
    again: int = 0

    def percentile(self, share: float) -> float:
        """The seconds within which this share of the answers came (nearest rank); 0 if there were none."""
        return self.seconds[max(0, math.ceil(share * len(self.seconds)) - 1)] if self.seconds else 0.0


def request(wanted: Smoke, address: str, host: str) -> Request:
    """The request that a `[[smoke]]` describes."""
    content_type = wanted.content_type if wanted.body else ""
    return Request(wanted.method, wanted.path, address, host, wanted.max_seconds, wanted.body, content_type)


def wrong(wanted: Smoke, came: Came) -> str:
    """What of an answer is not as it should be; "" if nothing is."""
    return next(_complaints(wanted, came), "")


def _complaints(wanted: Smoke, came: Came) -> Iterator[str]:
    if wanted.status == AUTO and came.status >= 400:
        yield f"answered {came.status}, not below 400"
    if wanted.status not in (AUTO, came.status):
        yield f"answered {came.status}, not {wanted.status}"
    for name, words in wanted.header.items():
        value = came.headers.get(name.lower())
        if value is None:
            yield f"has no header {name}"
        elif words not in value:
            yield f"says {name}: {value}, without {words!r}"
    if wanted.text not in came.body.decode("utf-8", "replace"):
        yield f"has no {wanted.text!r} in its body"
    if came.seconds > wanted.max_seconds:
        yield f"took {came.seconds:.1f} s, more than {wanted.max_seconds:g}"


def ask(asked: Request) -> Came:
    """One request on a connection of its own.

    Raises:
        OSError, HTTPException: there was no whole answer in time.
    """
    connection = _connection(asked)
    try:
        return _exchange(connection, asked)
    finally:
        connection.close()


def failure(error: Exception) -> str:
    """Why there was no answer, in words."""
    if isinstance(error, TimeoutError):
        return "took too long" if not error.args or "timed out" in str(error) else str(error)
    return str(error) or type(error).__name__


class Visitors:
    """Threads that ask the same requests round and round from `with` to its end.

    `asked` are the requests, and what judges the answer to each. So many visitors have `kept` connections, and so many
    come `fresh` each time.
    """

    def __init__(self, asked: Mapping[Request, Judge], kept: int = KEPT, fresh: int = FRESH) -> None:
        self._asked = list(asked.items())
        self._kept = kept
        self._phase = ""
        self._stopped = threading.Event()
        self._turned = threading.Condition()
        self._turns = [0] * (kept + fresh)
        self._visits: list[Visit] = []
        self._connections: dict[int, HTTPConnection] = {}
        numbers = range(kept + fresh)
        self._threads = [threading.Thread(target=self._visit, args=(each,), daemon=True) for each in numbers]

    def enter(self, phase: str) -> None:
        """From now on requests are made in this phase."""
        self._phase = phase

    def another_turn(self) -> None:
        """Waits until each of them has begun and ended another request."""
        with self._turned:
            wanted = [each + 2 for each in self._turns]  # the one under way may have begun before
            self._turned.wait_for(lambda: all(now >= then for now, then in zip(self._turns, wanted, strict=True)))

    def visits(self) -> tuple[Visit, ...]:
        """What they have met so far, in the order in which it ended."""
        with self._turned:
            return tuple(self._visits)

    def load(self, phase: str | None = None) -> Load:
        """The same in figures; of one phase, if that is given."""
        met = [each for each in self.visits() if phase in (None, each.phase)]
        failures = [f"{each.asked}: {each.problem}" for each in met if each.problem]
        seconds = sorted(each.seconds for each in met if each.seconds is not None)
        again = sum(each.again for each in met)
        told = tuple(dict.fromkeys(failures))[:SHOWN]
        return Load(len(met), len(failures), told, tuple(seconds), again)

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if error is not None and not isinstance(error, Exception):
            for each in list(self._connections.values()):
                _cut(each)  # interrupted: whoever waits for an answer waits no more
        for thread in self._threads:
            thread.join()

    def _visit(self, number: int) -> None:
        turn = number  # not all of them for the same at the same time
        while not self._stopped.is_set():
            asked, judge = self._asked[turn % len(self._asked)]
            turn += 1
            visit = self._made(number, asked, judge)
            if number >= self._kept:
                self._drop(number)
            if self._stopped.is_set() and visit.problem:
                break  # cut off by us, perhaps
            with self._turned:
                self._turns[number] += 1
                self._visits.append(visit)
                self._turned.notify_all()
            self._stopped.wait(BREATH if visit.problem else PAUSE)
        self._drop(number)

    def _made(self, number: int, asked: Request, judge: Judge) -> Visit:
        phase, began, clock, seconds, again = self._phase, time.time(), time.monotonic(), None, False
        try:
            try:
                came = self._exchange(number, asked)
            except _UnreadError:
                again = True
                self._drop(number)
                came = self._exchange(number, asked)
            seconds = time.monotonic() - clock
            problem = judge(came)
        except WRONG as error:
            problem = failure(error)
            self._drop(number)
        return Visit(asked, phase, began, time.time(), seconds, problem, again)

    def _exchange(self, number: int, asked: Request) -> Came:
        connection = self._connections.get(number)
        if connection is None or (connection.host, connection.port) != _where(asked):
            self._drop(number)
            connection = self._connections[number] = _connection(asked)
        return _exchange(connection, replace(asked, agent=AGENT))

    def _drop(self, number: int) -> None:
        old = self._connections.pop(number, None)
        if old is not None:
            old.close()


class _UnreadError(ConnectionError):
    """A connection that had been kept was closed before anybody read the request: it can be asked again."""


def _connection(asked: Request) -> HTTPConnection:
    return HTTPConnection(*_where(asked), timeout=asked.within)


def _where(asked: Request) -> tuple[str, int]:
    host, _, port = asked.address.rpartition(":")
    return host.strip("[]"), int(port)


def _exchange(connection: HTTPConnection, asked: Request) -> Came:
    began = time.monotonic()
    headers = {"Host": asked.host, "User-Agent": asked.agent, "Accept": "*/*"}
    if asked.content_type:
        headers["Content-Type"] = asked.content_type
    _send(connection, asked, headers)
    response = connection.getresponse()
    body = b""
    while piece := response.read1(PIECE):
        body += piece
        if time.monotonic() - began > asked.within:
            raise TimeoutError(f"had not answered it all within {asked.within:g} s")
    if response.length:
        raise IncompleteRead(body, response.length)
    response.read()  # nothing is left to be read: it lets go of the connection
    found: dict[str, str] = {}
    for name, value in response.getheaders():
        known = found.get(name.lower())
        found[name.lower()] = value if known is None else f"{known}, {value}"
    return Came(response.status, found, body, time.monotonic() - began)


def _send(connection: HTTPConnection, asked: Request, headers: dict[str, str]) -> None:
    """The request; on a kept connection, which the other side may have just closed, also the wait for an answer."""
    kept = connection.sock
    try:
        connection.request(asked.method, asked.path, asked.body.encode() or None, headers)
        if kept is not None and not kept.recv(1, socket.MSG_PEEK) and not _was_read(kept):
            raise _UnreadError
    except (BrokenPipeError, ConnectionResetError) as error:
        if kept is None:
            raise
        raise _UnreadError from error


def _was_read(ended: socket.socket) -> bool:
    """Whether what we sent on a connection was read before the other side ended it: then a request has been lost.

    Who closes a socket with something unread in it, or is sent something after that, resets the connection; see
    tcp(7) and RFC 9293, section 3.6.1. Else all of it is acknowledged with the end.
    """
    state, unacknowledged = struct.unpack_from("B23xI", ended.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32))
    return bool(state != TCP_CLOSE and not unacknowledged)


def _cut(connection: HTTPConnection) -> None:
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
