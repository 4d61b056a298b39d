"""Kept-alive connections are the whole server's: whoever is free goes on with them, whoever else is busy or gone."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from stack.wsgi.connection import IDLE_WITHIN
from stack.wsgi.keeper import LOST_AFTER, Keeper
from stack.wsgi.pool import MESSAGE, NOBODY, READY, ROOM, SHARE, WANTED, PooledSocket, Share

from . import wire
from .conftest import WITHIN, everything, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Server

PID = b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n"


def ask_pid(sock: socket.socket) -> int:
    sock.sendall(PID)
    return pid_of(sock)


def pid_of(sock: socket.socket) -> int:
    answer = sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    return int(answer.rpartition(b"\r\n\r\n")[2])


def readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def kept(server: Server, ends: ExitStack) -> list[socket.socket]:
    """Connections that have had a request."""
    found = [ends.enter_context(server.connect()) for _ in range(12)]
    for each in found:
        ask_pid(each)
    return found


def occupy(sock: socket.socket, gate: Path) -> None:
    """Have whoever takes it be at a request until the gate is there."""
    sock.sendall(f"GET /wait?{gate} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    wait_until(gate.with_suffix(".begun").exists, "it is at its request")


@pytest.fixture
def two(launch: Callable[..., Server]) -> Server:
    """A server with two workers of one thread each, both of which have answered."""
    server = launch("wsgi_odd:app", "--workers", "2", "--threads", "1")
    wait_until(lambda: len({int(server.get("/pid")[1]) for _ in range(20)}) == 2, "both serve")
    return server


def test_each_is_served_by_whoever_is_free(two: Server, folder: Path) -> None:
    with ExitStack() as ends:
        slow, *others = kept(two, ends)
        occupy(slow, folder / "a")
        free = {ask_pid(each) for each in others for _ in range(3)}
        assert len(free) == 1
        (folder / "a").touch()
        assert slow.recv(4096).endswith(b"waited")
        assert ask_pid(slow) in two.workers()


def test_where_nobody_is_free_whoever_is_so_first_serves(two: Server, folder: Path) -> None:
    with two.connect() as first, two.connect() as second, two.connect() as waits:
        for each in (first, second, waits):
            ask_pid(each)
        occupy(first, folder / "a")
        occupy(second, folder / "b")
        waits.sendall(PID)
        (folder / "b").touch()
        assert second.recv(4096).endswith(b"waited")
        assert pid_of(waits) in two.workers()
        assert not readable(first)
        (folder / "a").touch()
        assert first.recv(4096).endswith(b"waited")


def test_what_a_killed_worker_has_in_hand_is_closed_and_all_else_goes_on(two: Server, folder: Path) -> None:
    with ExitStack() as ends:
        slow, *others = kept(two, ends)
        occupy(slow, folder / "a")
        free = ask_pid(others[0])
        (busy,) = set(two.workers()) - {free}
        os.kill(busy, signal.SIGKILL)
        assert everything(slow) == b""
        for each in others:
            assert ask_pid(each) != busy


def test_what_is_kept_outlives_all_workers(two: Server) -> None:
    with two.connect() as first, two.connect() as second:
        for each in (first, second):
            ask_pid(each)
        before = two.workers()
        two.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "all workers have the new code" in two.log, "replaced")
        for each in (first, second):
            assert ask_pid(each) not in before


def test_a_stopped_worker_keeps_nothing_from_the_others(two: Server) -> None:
    with ExitStack() as ends:
        every = kept(two, ends)
        stopped = two.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(stopped).status() == psutil.STATUS_STOPPED, "it is stopped")
        for each in every:
            assert ask_pid(each) != stopped


def test_what_has_begun_to_arrive_is_not_lost(two: Server) -> None:
    """It is in the memory of one process, whoever serves all others meanwhile."""
    with two.connect() as half, two.connect() as other:
        for cut in range(1, len(PID), 3):
            half.sendall(PID[:cut])
            assert ask_pid(other) in two.workers()
            half.sendall(PID[cut:])
            assert pid_of(half) in two.workers()


def test_the_rest_of_a_body_that_nobody_has_read_is_not_taken_for_a_request(two: Server) -> None:
    """It comes in the midst of a record of FastCGI, of which only the process that has received its header knows."""
    body = b"x" * 60_000
    asked = wire.fastcgi({"REQUEST_METHOD": "POST", "PATH_INFO": "/unread", "CONTENT_LENGTH": "60000"}, body, keep=True)
    cut = asked.index(body) + 1000
    with two.connect() as kept:
        for _ in range(10):
            kept.sendall(asked[:cut])
            answer = b""
            while not answer.endswith(wire.record("END_REQUEST", 1, bytes(8))):
                answer += kept.recv(65536)
            assert b"not read" in wire.stdout(wire.records(answer))
            kept.sendall(asked[cut:])


FEW = 200  # descriptors, so 50 places


@pytest.mark.parametrize(
    ("asked", "end"),
    [
        (PID, b"\r\n\r\n"),
        (
            wire.fastcgi({"REQUEST_METHOD": "GET", "PATH_INFO": "/pid"}, keep=True),
            wire.record("END_REQUEST", 1, bytes(8)),
        ),
    ],
    ids=["http", "fastcgi"],
)
def test_what_finds_no_place_ends_with_its_answer(launch: Callable[..., Server], asked: bytes, end: bytes) -> None:
    """Were it kept, it would wait for the one process that has it."""
    server = launch(
        "wsgi_odd:app", "--workers", "2", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))
    )

    def answers(sock: socket.socket) -> bool:
        sock.sendall(asked)
        answer = b""
        while end not in answer:
            if not (more := sock.recv(4096)):
                assert not answer
                return False
            answer += more
        return True

    def is_kept() -> bool:
        with server.connect() as sock:
            return answers(sock) and answers(sock)

    with ExitStack() as ends:
        every = [ends.enter_context(server.connect()) for _ in range(60)]
        assert all(answers(each) for each in every)
        assert sum(answers(each) for each in every) == FEW // SHARE
        assert not is_kept()
    wait_until(is_kept, "there is a place again")


@pytest.mark.parametrize("most", [FEW, 1024])
def test_low_numbers_are_left_to_the_app_where_the_limit_cannot_rise(launch: Callable[..., Server], most: int) -> None:
    server = launch(
        "wsgi_odd:app", "--workers", "2", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    )
    for worker in server.workers():
        assert sum(int(each.name) < 100 for each in Path(f"/proc/{worker}/fd").iterdir()) < 20


# The pool, with several shares in it that would be processes of their own.


@pytest.fixture
def shares(keeper: Keeper) -> Iterator[tuple[Share, Share]]:
    both = Share(keeper.pool, keeper.enroll()), Share(keeper.pool, keeper.enroll())
    yield both
    keeper.end_all()
    for each in both:
        each.sweep()


@pytest.fixture
def put() -> Iterator[Callable[[Share], socket.socket]]:
    """Puts a connection into the pool that has something to read; its other end."""
    with ExitStack() as ends:

        def do(share: Share, since: float | None = None) -> socket.socket:
            sock, other = socket.socketpair()
            ends.enter_context(other).settimeout(WITHIN)
            other.sendall(b"asked")
            with sock:
                kept = share.put(sock, 7, faces=False)
            assert kept is not None
            share.put_back(kept, time.monotonic() if since is None else since)
            return other

        yield do


def taken(share: Share) -> PooledSocket:
    kept = share.take()
    assert kept is not None
    return kept


def test_what_one_puts_in_another_takes_and_puts_back(
    shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    first, second = shares
    other = put(first)
    kept = taken(second)
    assert (kept.recv(10), kept.listener) == (b"asked", 7)
    assert first.take() is None
    assert second.take() is None
    second.put_back(kept, time.monotonic())
    assert first.take() is None
    other.sendall(b"again")
    kept = taken(first)
    assert kept.recv(10) == b"again"
    kept.close()
    assert other.recv(10) == b""
    kept.close()
    assert not first.pool.used()


def test_what_is_in_hand_from_the_first_is_nobody_elses(shares: tuple[Share, Share]) -> None:
    first, second = shares
    sock, other = socket.socketpair()
    with sock, other:
        kept = first.put(sock, 7, faces=False)
        other.sendall(b"asked")
        assert second.take() is None
        assert kept is not None
        first.put_back(kept, time.monotonic())
        taken(second).close()
        assert other.recv(10) == b""


def test_a_place_is_taken_again_and_again(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    """Nobody takes what is at a place now for what was there before."""
    first, second = shares
    for turn in range(3 * ROOM):
        putter, taker = (first, second) if turn % 2 else (second, first)
        with put(putter):
            kept = taken(taker)
            assert kept.recv(10) == b"asked"
            kept.close()
        keeper.sweep()


def test_what_a_process_may_have_taken_when_it_was_killed_is_taken_by_another(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    first, second = shares
    put(first)
    assert keeper.pool.epoll.poll(0, 1), "taken by one that has not come to writing it down"
    keeper.gone(first.number)
    now = time.monotonic()
    keeper.look(now)
    assert second.take() is None, "it may be about to be written down"
    assert keeper.due() == now + LOST_AFTER
    keeper.gone(second.number)  # however often that happens
    keeper.look(now + LOST_AFTER)
    assert taken(second).recv(10) == b"asked"
    assert keeper.due() == float("inf")


def test_what_is_armed_twice_is_taken_once(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    first, second = shares
    put(first)
    second.take()
    keeper.pool.epoll.modify(keeper.pool.numbers[keeper.pool.used()[0]], READY)
    assert first.take() is None


def test_what_a_process_was_about_to_put_in_when_it_was_killed_is_taken_by_another(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    first, second = shares
    put(first)
    keeper.sweep()
    keeper.pool.epoll.unregister(keeper.pool.numbers[keeper.pool.used()[0]])
    keeper.gone(first.number)
    now = time.monotonic()
    keeper.look(now)
    keeper.look(now + LOST_AFTER)
    assert taken(second).recv(10) == b"asked"


def test_what_a_process_had_in_hand_ends_with_it(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    first, second = shares
    other, others = put(second), put(first)
    assert [taken(first).recv(10), taken(first).recv(10)] == [b"asked", b"asked"]
    keeper.gone(first.number)
    assert (other.recv(10), others.recv(10)) == (b"", b"")
    assert not keeper.pool.used()
    second.sweep()
    assert keeper.enroll() == first.number


def test_whoever_comes_later_has_all(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    put(shares[0])
    number = keeper.enroll()
    put(shares[0])
    keeper.enter(number)  # as the process that is forked then
    assert [taken(keeper).recv(10), taken(keeper).recv(10)] == [b"asked", b"asked"]


def test_what_comes_once_more_takes_nothing_from_who_has_it(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    """A process that is forked just when a connection is put into the pool has inherited what it is sent, too."""
    first, second = shares
    other = put(first)
    kept = taken(second)
    message = MESSAGE.pack(kept.place, kept.generation, 7)
    socket.send_fds(keeper.pool.mailboxes[second.number][1], [message], [kept.fileno()])
    second.sweep()
    kept.sendall(b"answer")
    assert other.recv(10) == b"answer"
    second.put_back(kept, time.monotonic())
    assert taken(first).recv(10) == b"asked"


def test_what_got_lost_on_its_way_is_sent_again(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    first, second = shares
    put(first)
    (place,) = keeper.pool.used()
    keeper.pool.mailboxes[second.number][0].recv(100)  # without its descriptor
    with pytest.raises(OSError, match="Too many open files"):
        second.take()
    assert keeper.pool.holders[place] == WANTED
    assert readable(keeper.told)
    keeper.look(time.monotonic())
    assert keeper.pool.holders[place] == NOBODY
    assert taken(second).recv(10) == b"asked"


def test_what_cannot_be_told_to_all_stays(keeper: Keeper, shares: tuple[Share, Share]) -> None:
    first, second = shares
    with suppress(BlockingIOError):
        while True:
            keeper.pool.mailboxes[second.number][1].send(MESSAGE.pack(0, 0, 0))
    sock, other = socket.socketpair()
    with sock, other:
        assert first.put(sock, 7, faces=False) is None
        other.sendall(b"asked")
        assert sock.recv(10) == b"asked"
    assert not keeper.pool.used()
    keeper.sweep()
    assert os.fstat(keeper.pool.numbers[0]).st_rdev == Path(os.devnull).stat().st_rdev


def test_what_is_idle_for_too_long_ends(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    now = time.monotonic()
    old, new = put(shares[0], now), put(shares[0], now + 10.0)
    keeper.look(now)
    assert keeper.due() == now + IDLE_WITHIN
    keeper.look(now + IDLE_WITHIN)
    assert not readable(old), "somebody may have taken it just now"
    assert keeper.due() == now + IDLE_WITHIN + LOST_AFTER
    keeper.look(keeper.due())
    assert old.recv(10) == b""
    assert keeper.due() == now + 10.0 + IDLE_WITHIN
    assert len(keeper.pool.used()) == 1
    taken(shares[0]).close()
    assert new.recv(10) == b""


def test_who_drains_waits_for_those_that_may_be_used_once_more(
    keeper: Keeper, shares: tuple[Share, Share], put: Callable[..., socket.socket]
) -> None:
    first, second = shares
    now = time.monotonic()
    put(first, now)
    assert not second.quiet(now + 1.0, 2.0)
    assert second.quiet(now + 2.0, 2.0)
    keeper.pool.faces[keeper.pool.used()[0]] = 1
    second.drain(now + 2.0)
    assert not second.quiet(now + 3.0, 2.0)
    kept = taken(first)
    assert second.quiet(now + 3.0, 2.0), "it is in hand, and whoever has it waits for itself"
    first.put_back(kept, now + 3.0)
    assert not second.quiet(now + 3.0, 2.0)


def test_who_has_no_number_keeps_its_own(keeper: Keeper) -> None:
    numbers = [keeper.enroll() for _ in range(20)]
    assert numbers.count(-1) == 8, "there are some for those that end, and their successors"
    alone = Share(keeper.pool, -1)
    sock, other = socket.socketpair()
    with sock, other:
        assert alone.put(sock, 7, faces=False) is None
        assert alone.take() is None
    keeper.gone(-1)
    assert keeper.enroll() == -1
