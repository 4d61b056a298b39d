"""A worker's threads: one serves alone as long as it needs no help; what has begun to arrive stays with them."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from stack.wsgi import bulkhead
from stack.wsgi.address import Address, Listener
from stack.wsgi.alone import JUDGE, Alone
from stack.wsgi.arguments import Settings
from stack.wsgi.connection import Service
from stack.wsgi.keeper import Keeper
from stack.wsgi.pool import Share
from stack.wsgi.state import Tally
from stack.wsgi.threads import Threads

from .conftest import WITHIN, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LARGE = 4 * 1024**2  # bytes: more than is on its way to a client that takes nothing
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Process:
    """A worker's threads, whose main thread is the test: it looks when it is told to."""

    def __init__(self, keeper: Keeper, listener: socket.socket, threads: int) -> None:
        self.keeper = keeper
        self.share = Share(keeper.pool, keeper.enroll())
        self.begun, self.released = threading.Event(), threading.Event()
        tally = Tally(threads)
        self.service = service = Service(self.app, tally.progress, tally=tally)
        settings = Settings("", (), workers=1, threads=threads)
        listeners = [Listener(Address(""), listener, open_to_all=False)]
        self.progress = tally.progress
        self.threads = Threads(settings, service, listeners, self.share)
        self.woken, self.wake = os.pipe2(os.O_NONBLOCK)
        self.threads.start(self.wake)

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            self.begun.set()
            if not self.released.wait(WITHIN):
                raise AssertionError("nobody has released it")
        if environ["PATH_INFO"] == "/compute":
            self.begun.set()
            while not self.released.is_set():
                pass
        if environ["PATH_INFO"] == "/large":
            self.begun.set()
            start_response("200 OK", [("Content-Length", str(LARGE))])
            return [b"x" * LARGE]
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    def look(self) -> bool:
        self.threads.look(time.monotonic())
        return True

    def end(self) -> None:
        self.released.set()
        self.threads.drain(time.monotonic())
        wait_until(lambda: self.threads.leave(empty=True), "left")
        wait_until(lambda: self.threads.done(time.monotonic(), set(), 0.0), "done")
        self.threads.finish(set())
        self.keeper.end_all()
        self.share.sweep()  # it has no process of its own, with whose end all that it has would end
        os.close(self.woken)
        os.close(self.wake)


class Client:
    """A connection that is kept."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WITHIN)
        self.sock.connect(path)

    def ask(self, path: bytes = b"") -> None:
        self.sock.sendall(GET % path)

    def answer(self) -> None:
        assert self.sock.recv(4096).endswith(b"ok")

    def has_answer(self) -> bool:
        return bool(select.select([self.sock], [], [], 0)[0])


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[int], tuple[Process, Callable[[], Client]]]]:
    """Makes a process of so many threads; with what connects to it."""
    with ExitStack() as ends:

        def make(threads: int) -> tuple[Process, Callable[[], Client]]:
            path = str(tmp_path / "s")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(64)
            listener.setblocking(False)
            keeper = Keeper(1)
            ends.callback(keeper.pool.close)
            process = Process(keeper, listener, threads)
            ends.callback(process.end)
            process.threads.accept()

            def connect() -> Client:
                client = Client(path)
                ends.callback(client.sock.close)
                return client

            return process, connect

        yield make


@pytest.mark.parametrize("at", [b"wait", b"compute", b"large"])
def test_one_thread_serves_alone_while_the_interpreter_is_busy_until_it_is_long_at_one_request(
    made: Any, at: bytes
) -> None:
    process, connect = made(4)
    clients = [connect() for _ in range(8)]
    loaded_alone(process, clients, 3)
    clients[0].ask(at)
    assert process.begun.wait(WITHIN)
    for each in clients[1:]:
        each.ask()
    wait_until(lambda: process.look() and all(each.has_answer() for each in clients[1:]), "the others help")
    assert not process.threads.alone.serves
    process.released.set()
    if at != b"large":  # which it never takes
        clients[0].answer()


def test_who_serves_alone_is_helped_however_long_another_has_been_at_a_request(made: Any) -> None:
    process, connect = made(4)
    long, *clients = [connect() for _ in range(8)]
    while True:
        long.ask(b"wait")
        assert process.begun.wait(WITHIN)
        if not process.progress[0]:
            break
        process.released.set()  # it is at the one that would serve alone
        long.answer()
        process.released.clear()
        process.begun.clear()
    loaded_alone(process, clients, 2)
    process.begun.clear()
    clients[0].ask(b"wait")
    assert process.begun.wait(WITHIN)
    for each in clients[1:]:
        each.ask()
    wait_until(lambda: process.look() and all(each.has_answer() for each in clients[1:]), "the others help")
    process.released.set()
    for each in (long, clients[0]):
        each.answer()


def loaded_alone(process: Process, clients: list[Client], others: int) -> None:
    """Keep the interpreter busy until one thread serves alone, and so many others wait for that to end."""
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            for each in clients:
                each.ask()
            for each in clients:
                each.answer()

    loader = threading.Thread(target=load)
    loader.start()
    try:
        wait_until(lambda: process.look() and process.threads.alone.serves, "one serves")
        # Each waits from its next event on, so the load goes on until all have had one.
        wait_until(lambda: resting() == others, "the others wait for that to end")
    finally:
        stop.set()
        loader.join()


def resting() -> int:
    """How many threads are kept from serving."""
    frames = [each for frame in sys._current_frames().values() for each, _ in traceback.walk_stack(frame)]
    return sum(each.f_code is Alone.wait.__code__ for each in frames)


def test_who_has_one_thread_is_not_judged(made: Any) -> None:
    process, connect = made(1)
    client = connect()
    client.ask(b"compute")
    assert process.begun.wait(WITHIN)
    until = time.monotonic() + 3 * JUDGE
    while time.monotonic() < until:
        process.look()
    assert not process.threads.alone.serves
    process.released.set()
    client.answer()


def test_main_thread_need_not_look_where_nothing_is_asked(made: Any) -> None:
    process, connect = made(1)
    assert process.threads.look_within == float("inf")
    client = connect()
    client.ask(b"wait")
    assert process.begun.wait(WITHIN)
    assert process.threads.look_within < 1.0
    process.released.set()
    client.answer()
    wait_until(lambda: process.look() and process.threads.look_within == float("inf"), "it is at rest again")


@pytest.fixture
def held(made: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], tuple[Process, Client, Client, Client]]:
    """Makes a process that is at one slow request with one of two threads, and has the next wait, until it need not.

    With the clients of both, and another.
    """
    monkeypatch.setattr(bulkhead, "LONGEST", 10 * WITHIN)

    def make(second: bytes) -> tuple[Process, Client, Client, Client]:
        process, connect = made(2)
        know(process)
        clients = connect(), connect(), connect()
        clients[0].ask(b"wait")
        assert process.begun.wait(WITHIN)
        clients[1].sock.sendall(second)
        wait_until(lambda: process.service.bulkhead.held, "held")
        return process, *clients

    return make


def know(process: Process) -> None:
    """Let it know that /wait is slow."""
    ended = process.service.bulkhead.ended
    for _ in range(3):
        ended("GET", "/", 0.001, 0.0)
    for now in (0.0, 10 * WITHIN):
        ended("GET", "/wait", 10 * WITHIN, now)


def test_only_thread_of_all_does_not_wait_for_another(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "LONGEST", 10 * WITHIN)
    process, connect = made(1)
    know(process)
    client = connect()
    client.ask(b"wait")
    assert process.begun.wait(WITHIN)
    process.released.set()
    client.answer()


@pytest.mark.parametrize("protocol", ["http", "uwsgi", "fastcgi", "scgi"])
def test_slow_request_does_not_take_the_last_thread(held: Any, protocol: str) -> None:
    process, first, second, quick = held(request(protocol, "/wait"))
    for _ in range(3):
        quick.ask()
        quick.answer()  # nobody would answer, were both threads at the slow ones
    assert process.service.bulkhead.held
    process.released.set()
    first.answer()
    assert b"\r\n\r\nok" in second.sock.recv(4096)
    assert not process.service.bulkhead.held


def test_slow_request_that_waits_is_answered_before_the_process_ends(held: Any) -> None:
    process, first, second, _ = held(GET % b"wait")
    process.threads.drain(time.monotonic())
    assert process.threads.leave(empty=True)
    stuck = {index for index, since in enumerate(process.progress) if since}
    assert not process.threads.done(time.monotonic(), stuck, 0.0)
    process.released.set()
    first.answer()
    second.answer()


def test_request_that_has_waited_is_answered_once_though_nothing_is_slow_any_more(held: Any) -> None:
    process, first, second, _ = held(GET % b"wait")
    process.service.bulkhead.slow.clear()
    process.released.set()
    first.answer()
    for _ in range(2):
        second.answer()
        second.ask()
    second.answer()
    assert not process.service.bulkhead.held
