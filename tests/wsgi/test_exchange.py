"""Who serves a kept-alive connection: whichever thread is free, in whichever process; or one that needs no help."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from stack.wsgi.address import Address, Listener
from stack.wsgi.alone import JUDGE
from stack.wsgi.arguments import Settings
from stack.wsgi.connection import Service
from stack.wsgi.exchange import Exchange
from stack.wsgi.state import Tally
from stack.wsgi.threads import Threads

from .conftest import WITHIN, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 4 * 1024**2  # bytes: more than is on its way to a client that takes nothing
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Process:
    """A worker's threads, whose main thread is the test: it looks when it is told to."""

    def __init__(self, exchange: Exchange, listener: socket.socket, workers: int, threads: int) -> None:
        self.name = exchange.slot()
        self.begun, self.released = threading.Event(), threading.Event()
        tally = Tally(threads)
        service = Service(self.app, tally.progress, [None] * threads, tally=tally)
        settings = Settings("", (), workers=workers, threads=threads)
        listeners = [Listener(Address(""), listener, open_to_all=False)]
        self.progress = tally.progress
        self.threads = Threads(settings, service, listeners, exchange, self.name)
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
        return [b"%2d" % self.name]

    def look(self) -> bool:
        self.threads.look(time.monotonic())
        return True

    def end(self) -> None:
        self.released.set()
        self.threads.drain(time.monotonic())
        wait_until(lambda: self.threads.leave(empty=True), "left")
        wait_until(lambda: self.threads.done(time.monotonic(), set(), 0.0), "done")
        self.threads.finish(set())
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

    def answer(self) -> int:
        return int(self.sock.recv(4096).rpartition(b"\r\n\r\n")[2])

    def has_answer(self) -> bool:
        return bool(select.select([self.sock], [], [], 0)[0])


@pytest.fixture
def made(tmp_path: Any) -> Iterator[Callable[[int, int], tuple[list[Process], Callable[[], Client]]]]:
    """Makes so many processes of so many threads; with what connects to them."""
    with ExitStack() as ends:

        def make(count: int, threads: int) -> tuple[list[Process], Callable[[], Client]]:
            path = str(tmp_path / "s")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(64)
            listener.setblocking(False)
            exchange = Exchange(count, threads)
            ends.callback(exchange.close)
            processes = [Process(exchange, listener, count, threads) for _ in range(count)]
            for each in processes:
                ends.callback(each.end)

            def connect() -> Client:
                client = Client(path)
                ends.callback(client.sock.close)
                return client

            return processes, connect

        yield make


def occupied(process: Process, connect: Callable[[], Client]) -> tuple[Client, Client]:
    """From now on it accepts, and its one thread is at a request: that one's client, and another that it keeps."""
    process.threads.accept()
    slow, kept = connect(), connect()
    for each in (slow, kept):
        each.ask()
        assert each.answer() == process.name
    slow.ask(b"wait")
    assert process.begun.wait(WITHIN)
    return slow, kept


def both_occupied(made: Any) -> tuple[list[Process], tuple[Client, Client, Client]]:
    """Two processes; the client of the one's request, another that it keeps, and the client of the other's request."""
    processes, connect = made(2, 1)
    slow, kept = occupied(processes[0], connect)
    others_slow, _ = occupied(processes[1], connect)
    return processes, (slow, kept, others_slow)


def test_what_a_busy_process_keeps_is_served_by_one_that_is_free(made: Any) -> None:
    (busy, free), connect = made(2, 1)
    busy.threads.accept()
    slow, *others = [connect() for _ in range(4)]
    for each in (slow, *others):
        each.ask()
        assert each.answer() == busy.name
    free.threads.accept()
    slow.ask(b"wait")
    assert busy.begun.wait(WITHIN)
    assert os.read(busy.woken, 64), "it has called its main thread"
    for each in others:
        each.ask()
        wait_until(lambda: busy.look() and each.has_answer(), "served elsewhere")  # noqa: B023 - called at once
        assert each.answer() == free.name
    busy.released.set()
    assert slow.answer() == busy.name
    for each in others:
        each.ask()
        assert each.answer() == free.name, "it stays there"


def test_where_nobody_is_free_it_is_served_by_who_is_so_first(made: Any) -> None:
    (busy, other), (slow, waits, others_slow) = both_occupied(made)
    waits.ask()
    wait_until(lambda: busy.look() and not busy.threads.waiting, "it is in the queue")
    assert not waits.has_answer()
    other.released.set()
    assert others_slow.answer() == other.name
    assert waits.answer() == other.name
    assert select.select(busy.threads.look_for, [], [], 0)[0] == [], "it waits for what arrives"
    assert busy.threads.look_for
    waits.ask()
    assert waits.answer() == other.name, "it lives there now"
    busy.released.set()
    assert slow.answer() == busy.name


def test_what_is_given_away_can_come_back(made: Any) -> None:
    (busy, other), (slow, waits, others_slow) = both_occupied(made)
    waits.ask()
    wait_until(lambda: busy.look() and not busy.threads.waiting, "it is in the queue")
    busy.released.set()
    assert (slow.answer(), waits.answer()) == (busy.name, busy.name)
    other.released.set()
    assert others_slow.answer() == other.name


def test_what_finds_no_room_is_served_by_its_own_process(made: Any) -> None:
    (busy, other), (slow, waits, others_slow) = both_occupied(made)
    (kept,) = busy.threads.waiting.values()
    room = True
    while room:
        spare, peer = socket.socketpair()
        with spare, peer:
            room = busy.threads.exchange.give(spare, kept.listener)
    waits.ask()
    for _ in range(100):
        busy.look()
    assert busy.threads.waiting, "it is nobody else's"
    busy.released.set()
    assert slow.answer() == busy.name
    wait_until(waits.has_answer, "served")
    other.released.set()
    assert others_slow.answer() == other.name


def test_a_process_without_others_gives_nothing_away(made: Any) -> None:
    (busy,), connect = made(1, 1)
    slow, waits = occupied(busy, connect)
    waits.ask()
    for _ in range(100):
        busy.look()
    assert busy.threads.waiting
    busy.released.set()
    assert (slow.answer(), waits.answer()) == (busy.name, busy.name)


def test_what_has_begun_to_arrive_stays(made: Any) -> None:
    """What is in the memory of a process cannot be given away."""
    (busy, free), connect = made(2, 1)
    busy.threads.accept()
    half, slow = connect(), connect()
    half.sock.sendall(b"GET / HTTP/1.1\r\n")
    wait_until(lambda: [each for each in busy.threads.waiting.values() if not each.idle], "it has begun to arrive")
    slow.ask(b"wait")
    assert busy.begun.wait(WITHIN)
    free.threads.accept()
    half.sock.sendall(b"Host: a\r\n\r\n")
    for _ in range(100):
        busy.look()
    assert not half.has_answer()
    busy.released.set()
    assert half.answer() == busy.name


def test_what_is_on_its_way_is_served_by_who_drains(made: Any) -> None:
    (busy, last), connect = made(2, 1)
    _, client = occupied(busy, connect)
    client.ask()
    wait_until(lambda: busy.look() and len(busy.threads.waiting) == 0, "given away, and taken by nobody")
    last.threads.accept()
    last.threads.drain(time.monotonic())
    wait_until(lambda: last.threads.leave(empty=True) and client.has_answer(), "served")
    assert client.answer() == last.name


@pytest.mark.parametrize("at", [b"wait", b"compute", b"large"])
def test_one_thread_serves_alone_while_the_interpreter_is_busy_until_it_is_long_at_one_request(
    made: Any, at: bytes
) -> None:
    (process,), connect = made(1, 4)
    process.threads.accept()
    clients = [connect() for _ in range(8)]
    loaded_alone(process, clients)
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
    (process,), connect = made(1, 4)
    process.threads.accept()
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
    loaded_alone(process, clients)
    process.begun.clear()
    clients[0].ask(b"wait")
    assert process.begun.wait(WITHIN)
    for each in clients[1:]:
        each.ask()
    wait_until(lambda: process.look() and all(each.has_answer() for each in clients[1:]), "the others help")
    process.released.set()
    for each in (long, clients[0]):
        each.answer()


def loaded_alone(process: Process, clients: list[Client]) -> None:
    """Keep the interpreter busy until one thread serves alone, and the others wait for that to end."""
    stop = threading.Event()

    def load() -> None:
        more = 100  # until each of the others has had an event, and waits no more
        while more:
            more -= stop.is_set()
            for each in clients:
                each.ask()
            for each in clients:
                each.answer()

    loader = threading.Thread(target=load)
    loader.start()
    try:
        wait_until(lambda: process.look() and process.threads.alone.serves, "one serves")
    finally:
        stop.set()
        loader.join()
    wait_until(lambda: process.threads.exchange.waiting == 1, "one waits for work")


def test_who_has_one_thread_is_not_judged(made: Any) -> None:
    (process,), connect = made(1, 1)
    process.threads.accept()
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
    (process,), connect = made(1, 1)
    process.threads.accept()
    assert process.threads.look_within == float("inf")
    client = connect()
    client.ask(b"wait")
    assert process.begun.wait(WITHIN)
    assert process.threads.look_within < 1.0
    process.released.set()
    client.answer()
    wait_until(lambda: process.look() and process.threads.look_within == float("inf"), "it is at rest again")


def test_a_place_of_a_worker_that_has_ended_waits_for_nothing() -> None:
    exchange = Exchange(1, 2)
    slots = [exchange.slot() for _ in range(12)]
    assert slots.count(-1) == 2, "it has places for those that end, and their successors"
    exchange.waits(slots[0])[1] = 1
    exchange.waits(-1)[0] = 1
    assert exchange.waiting == 1
    exchange.give_back(slots[0])
    assert exchange.waiting == 0
    assert exchange.slot() == slots[0]
    exchange.close()
