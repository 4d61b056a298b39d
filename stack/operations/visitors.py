"""Visitors of a site: one request and what is wrong with its answer; several who ask round and round."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException, IncompleteRead
from types import TracebackType
from typing import Self

from stack.config import AUTO, Smoke

__all__ = ["AGENT", "Came", "Load", "Request", "Visitors", "ask", "failure", "request", "wrong"]

AGENT = "stackctl-visitor"  # by which the access log tells them from whoever asks once
COUNT = 4  # visitors; fewer than the eight requests at once that the smallest default stack takes
SHOWN = 5  # failures that are told in full; one tells as much as a thousand
PIECE = 65536
BREATH = 0.05  # seconds between a failure and the next try: a dead site is not to be asked a million times
WRONG = (OSError, HTTPException)


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


@dataclass(frozen=True, slots=True)
class Load:
    """What visitors met: how many requests, how many failed and some of these in words, the seconds of those answered.

    `seconds` is sorted.
    """

    requests: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()
    seconds: Sequence[float] = field(default=(), repr=False)

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
    """Threads, each with a kept connection, that ask the same requests round and round from `with` to its end.

    `expected` are the requests, and the status that each is answered with while all is well.
    """

    def __init__(self, expected: Mapping[Request, int], count: int = COUNT) -> None:
        self._expected = [(replace(asked, agent=AGENT), status) for asked, status in expected.items()]
        self._stopped = threading.Event()
        self._turned = threading.Condition()
        self._turns = [0] * count
        self._seconds: list[float] = []
        self._failures: list[str] = []
        self._failed = 0
        self._connections: dict[int, HTTPConnection] = {}
        self._threads = [threading.Thread(target=self._visit, args=(each,), daemon=True) for each in range(count)]

    def another_turn(self) -> None:
        """Waits until each of them has begun and ended another request."""
        with self._turned:
            wanted = [each + 2 for each in self._turns]  # the one under way may have begun before
            self._turned.wait_for(lambda: all(now >= then for now, then in zip(self._turns, wanted, strict=True)))

    def load(self) -> Load:
        """What they have met so far."""
        with self._turned:
            found = tuple(self._failures[:SHOWN])
            return Load(sum(self._turns), self._failed, found, tuple(sorted(self._seconds)))

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
            asked, status = self._expected[turn % len(self._expected)]
            turn += 1
            self._try(number, asked, status)
        self._drop(number)

    def _try(self, number: int, asked: Request, status: int) -> None:
        connection = self._connections.get(number)
        if connection is None or (connection.host, connection.port) != _where(asked):
            self._drop(number)
            connection = self._connections[number] = _connection(asked)
        came, problem = None, ""
        try:
            came = _exchange(connection, asked)
            if came.status != status:
                problem = f"answered {came.status}; before, it was {status}"
        except WRONG as error:
            problem = failure(error)
            self._drop(number)
        if self._stopped.is_set() and problem:
            return  # cut off by us, perhaps
        with self._turned:
            self._turns[number] += 1
            if came is not None:
                self._seconds.append(came.seconds)
            if problem:
                self._failed += 1
                if len(self._failures) < SHOWN:
                    self._failures.append(f"{asked}: {problem}")
            self._turned.notify_all()
        if problem:
            self._stopped.wait(BREATH)

    def _drop(self, number: int) -> None:
        old = self._connections.pop(number, None)
        if old is not None:
            old.close()


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
    connection.request(asked.method, asked.path, asked.body.encode() or None, headers)
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


def _cut(connection: HTTPConnection) -> None:
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
