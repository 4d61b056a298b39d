"""The visitors: one request, and many at once."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, Self

PATIENCE = 60.0  # seconds that a client waits at most


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Load:
    """Visitors who ask one request after the other from `with` to its end: GET and POST in turn.

    All but the first keep their connections. One more asks for what takes a second. What they get is compared with
    what is right; `failed` says what was not, and `spans` when it was: from the request to its failure, monotonic.

    `closed` counts kept connections that were closed as the next request came, before a byte of its answer: an nginx
    that reads its files again, or is replaced, closes those that are idle. With `again` such a request is made once
    more, on a new one; else it has failed.
    """

    def __init__(self, port: int, clients: int = 8, *, slow: bool = True, again: bool = False) -> None:
        self.failed: list[str] = []
        self.spans: list[tuple[float, float]] = []
        self._port = port
        self._again = again
        self._good = [0] * (clients + slow)
        self._closed = [0] * (clients + slow)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(number,)) for number in range(clients)]
        if slow:
            self._threads.append(threading.Thread(target=self._wait, args=(clients,)))

    @property
    def good(self) -> int:
        return sum(self._good)

    @property
    def closed(self) -> int:
        return sum(self._closed)

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for each in self._threads:
            each.join(PATIENCE)

    def _visit(self, number: int) -> None:
        count = 0
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while not self._stopped.wait(0.04):
            count += 1
            body = f"{number}-{count} ".encode() * 50
            if count % 2:
                self._try(connection, number, "GET", "/pid", None)
            else:
                self._try(connection, number, "POST", "/echo", body)
        connection.close()

    def _wait(self, number: int) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while not self._stopped.wait(0.1):
            self._try(connection, number, "GET", "/slow?seconds=1", None)
        connection.close()

    def _try(self, connection: HTTPConnection, number: int, method: str, path: str, body: bytes | None) -> None:
        began = time.monotonic()
        try:
            if not self._sent(connection, number, method, path, body):
                self._closed[number] += 1
                connection.close()
                self._send(connection, number, method, path, body)
            response = connection.getresponse()
            received = response.read()
            if response.status == 200 and (received == body or (body is None and received)):
                self._good[number] += 1
                return
            problem = f"{response.status} {received[:80]!r}"
        except (OSError, HTTPException) as error:
            problem = repr(error)
            connection.close()
        now = time.strftime("%H:%M:%S")
        self.spans.append((began, time.monotonic()))
        self.failed.append(f"{now} client {number}: {method} {path} after {time.monotonic() - began:.3f} s: {problem}")

    def _send(self, connection: HTTPConnection, number: int, method: str, path: str, body: bytes | None) -> None:
        connection.request(method, path, body, {"Connection": "close"} if number == 0 else {})

    def _sent(self, connection: HTTPConnection, number: int, method: str, path: str, body: bytes | None) -> bool:
        """Send a request; whether an answer begins, which only on a connection that was kept it need not."""
        was_kept = self._again and connection.sock is not None
        try:
            self._send(connection, number, method, path, body)
            return not was_kept or connection.sock.recv(1, socket.MSG_PEEK) != b""
        except (ConnectionResetError, BrokenPipeError):
            if was_kept:
                return False
            raise
