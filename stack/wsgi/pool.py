"""Kept-alive connections belong to the server, not to one of its processes.

A connection that the web server keeps is accepted by one process. Were it to stay there, its next request would wait
behind slow ones while another process has nothing to do: with a connection for each request that does not happen. So,
as long as nothing is in hand of it, a connection is in an epoll that all processes share, as they share a listening
socket. Whoever is free first takes it from there, serves a request, and puts it back.

How all have it: an entry of an epoll is an open file description and the number it has (epoll(7)). Every process has
each connection under the same number, so each can arm it again. Who puts a connection into the pool sends it to all
others (SCM_RIGHTS, unix(7)), and they take it from their mailboxes when they first need it. The numbers are kept free
for that from the start, by descriptors of /dev/null.

Who has it: the kernel delivers an event once (EPOLLONESHOT), to one thread, which writes down its process as `holder`.
What a process held when it ended is closed by the master, who has all connections too, for the workers it forks
(`keeper`).

A connection comes into the pool before its first answer. One that finds no place there, or no room in a mailbox, ends
with that answer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection

ROOM = 512  # connections: nginx keeps 64 for each of its processes
FIRST = 1024  # the lowest of their descriptors: an app that calls select() needs those below
SHARE = 4  # where the limit of descriptors cannot rise, one of so many is for them
READY = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT

MESSAGE = struct.Struct("=HIi")  # place, generation, and the listening socket it came from; or who wants it again
VACANT = struct.Struct("=H")
MASTER = 0  # the master's number among the processes
NOBODY = 0xFFFE  # holder of what waits for its next request
WANTED = 0xFFFF  # holder of what was taken by a process that does not have it


class Pool:
    """What all processes share. Made by the master before the first fork, for a number of `workers`.

    For each place: `since` when nothing is in hand of the connection (monotonic seconds), its `generations` (odd while
    there is one), its `holders`, and whether it `faces` a client. `live` tells which processes there are, `free` which
    of them have a thread that is.
    """

    def __init__(self, workers: int) -> None:
        processes = 1 + 2 * workers + 8  # those that end, and their successors, too
        self.numbers, self.null = _reserve(beside=2 * (processes + 1) + 4)
        self.places = {number: place for place, number in enumerate(self.numbers)}
        room = len(self.numbers)
        memory = memoryview(mmap.mmap(-1, 15 * room + 2 * processes + 1))
        self.since = memory[: 8 * room].cast("d")
        self.generations = memory[8 * room : 12 * room].cast("I")
        self.holders = memory[12 * room : 14 * room].cast("H")
        self.faces = memory[14 * room : 15 * room]
        self.live = memory[15 * room : 15 * room + processes]
        self.free = memory[15 * room + processes :]
        self.live[MASTER] = 1
        with select.epoll() as epoll:
            self.epoll = select.epoll.fromfd(_at(self.null, os.dup(epoll.fileno())))
        self.mailboxes = [_mailbox(self.null) for _ in range(processes + 1)]  # the last is for who has no number
        vacant = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # each is read by one
        self._vacant, self._vacate = (_at(self.null, each) for each in vacant)
        for place in range(room):
            os.write(self._vacate, VACANT.pack(place))

    def close(self) -> None:
        """Close all that it has opened."""
        self.epoll.close()
        for each in (*self.numbers, self.null, self._vacant, self._vacate):
            os.close(each)
        for read, write in self.mailboxes:
            read.close()
            write.close()

    def used(self) -> list[int]:
        """The places with a connection."""
        return [place for place, generation in enumerate(self.generations) if generation & 1]

    def occupy(self) -> int | None:
        """A place for a connection; None if there is none left."""
        with contextlib.suppress(BlockingIOError):
            place: int = VACANT.unpack(os.read(self._vacant, VACANT.size))[0]
            return place
        return None

    def vacate(self, place: int) -> None:
        """Whoever has this connection has it no more."""
        self.generations[place] += 1
        os.write(self._vacate, VACANT.pack(place))  # who occupies it next writes down who holds it


class PooledSocket(socket.socket):
    """A connection of the pool, as one process has it. To close it is to end it for all.

    `waited` is whether the epoll has it: not before its first answer.
    """

    def __init__(self, share: Share, place: int, generation: int, listener: int, *, waited: bool) -> None:
        super().__init__(fileno=share.pool.numbers[place])
        self.share = share
        self.place = place
        self.generation = generation
        self.listener = listener
        self.waited = waited
        self.connection: Connection | None = None

    def close(self) -> None:
        """End it."""
        self.share.end(self)


class Share:
    """One process's part in the pool; `number` is what the others know it by, -1 if it has none, and takes no part."""

    def __init__(self, pool: Pool, number: int) -> None:
        self.pool = pool
        self._lock = threading.Lock()
        self._has: dict[int, int] = {}  # generations, by place
        self._listeners = [-1] * len(pool.numbers)
        self._kept: list[PooledSocket | None] = [None] * len(pool.numbers)
        self.enter(number)

    def enter(self, number: int) -> None:
        """From now on this is the process of that number, with all that it has inherited."""
        self.number = number
        self._mailbox = self.pool.mailboxes[number][0]

    def tell(self, *, free: bool) -> None:
        """Tell the others whether a thread of this process is free."""
        self.pool.free[self.number] = free

    @property
    def others_free(self) -> bool:
        """Whether a thread of another process is."""
        return any(free and number != self.number for number, free in enumerate(self.pool.free))

    def put(self, sock: socket.SocketType, listener: int, *, faces: bool) -> PooledSocket | None:
        """Put a connection into the pool that this thread has in hand; None if that cannot be."""
        pool = self.pool
        place = pool.occupy() if self.number >= 0 else None
        if place is None:
            return None
        pool.holders[place] = self.number
        pool.faces[place] = faces
        generation = pool.generations[place] = pool.generations[place] + 1
        message, told = [MESSAGE.pack(place, generation, listener)], {self.number}
        try:
            with self._lock:
                self._receive()  # one that has much to tell has been told much
                self._map(sock.fileno(), place, generation, listener)
                kept = self._kept[place] = PooledSocket(self, place, generation, listener, waited=False)
            # Once more for those that have been made live meanwhile: their master may have forked them before it was
            # told, but then it made them live before.
            while missing := [each for each, lives in enumerate(pool.live) if lives and each not in told]:
                for each in missing:
                    socket.send_fds(pool.mailboxes[each][1], message, [sock.fileno()])
                    told.add(each)
        except OSError:  # a mailbox is full, too many descriptors are on their way (ETOOMANYREFS), no memory
            self._let_go(place)
            pool.vacate(place)
            return None
        return kept

    def take(self) -> PooledSocket | None:
        """A connection that has something to read, or has ended, if there is one; it is this thread's alone.

        Raises:
            OSError: no descriptor is free (EMFILE); it goes to whoever is free next.
        """
        pool = self.pool
        events = pool.epoll.poll(0, 1) if self.number >= 0 else ()
        if not events:
            return None
        place = pool.places[events[0][0]]
        if pool.holders[place] != NOBODY:  # it was armed twice: see Keeper.look
            return None
        pool.holders[place] = self.number
        kept = self._kept[place]
        if kept is not None and kept.generation == pool.generations[place]:
            return kept
        return self._get(place)

    def _get(self, place: int) -> PooledSocket:
        """What this process has not had in hand before."""
        generation = self.pool.generations[place]
        with self._lock:
            if self._has.get(place) != generation:
                with contextlib.suppress(OSError):
                    self._receive()
            if self._has.get(place) == generation:
                self._forget(place)
                listener = self._listeners[place]
                kept = self._kept[place] = PooledSocket(self, place, generation, listener, waited=True)
                return kept
        self.pool.holders[place] = WANTED
        with contextlib.suppress(OSError):
            self.pool.mailboxes[MASTER][1].send(MESSAGE.pack(place, generation, self.number))
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def put_back(self, kept: PooledSocket, since: float) -> None:
        """Nothing is in hand of it any more. It must not be touched after."""
        pool, place = self.pool, kept.place
        pool.since[place] = since
        pool.holders[place] = NOBODY
        if kept.waited:
            pool.epoll.modify(pool.numbers[place], READY)
        else:
            kept.waited = True
            with contextlib.suppress(FileExistsError):  # this process was stopped here: see Keeper.look
                pool.epoll.register(pool.numbers[place], READY)

    def end(self, kept: PooledSocket) -> None:
        """End a connection, for all; they have its descriptor still."""
        if kept.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            kept.shutdown(socket.SHUT_RDWR)
        self._end(kept.place)

    def _end(self, place: int) -> None:
        with contextlib.suppress(OSError):
            self.pool.epoll.unregister(self.pool.numbers[place])
        self._let_go(place)
        self.pool.vacate(place)

    def sweep(self) -> None:
        """Let go of what others have ended, and empty the mailbox."""
        with contextlib.suppress(OSError), self._lock:
            self._receive()
        for place, generation in list(self._has.items()):
            if generation != self.pool.generations[place]:
                self._let_go(place, generation)

    def quiet(self, now: float, grace: float) -> bool:
        """Whether no connection has been without a request for less than `grace` seconds, but for those in hand."""
        pool = self.pool
        return not any(pool.holders[each] == NOBODY and now - pool.since[each] < grace for each in pool.used())

    def drain(self, now: float) -> None:
        """However long a client's connection has been idle: its next request may be on the way."""
        for place in self.pool.used():
            if self.pool.faces[place] and self.pool.holders[place] == NOBODY:
                self.pool.since[place] = now

    def _receive(self) -> None:
        """Take what has been sent.

        Raises:
            OSError: no descriptor is free.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                os.close(os.dup(self._mailbox.fileno()))  # fails first where none is free: a connection would be lost
                data, descriptors, _, _ = socket.recv_fds(self._mailbox, MESSAGE.size, 1, socket.MSG_CMSG_CLOEXEC)
                place, generation, listener = MESSAGE.unpack(data)
                try:
                    if generation != self.pool.generations[place]:  # it has ended
                        pass
                    elif not descriptors:
                        self._send_again(place, listener)
                    elif generation != self._has.get(place):  # else inherited, and perhaps in hand already
                        self._map(descriptors[0], place, generation, listener)
                finally:
                    for each in descriptors:
                        os.close(each)

    def _send_again(self, place: int, number: int) -> None:
        """For the master."""

    def _map(self, fd: int, place: int, generation: int, listener: int) -> None:
        """Give a connection its number."""
        self._forget(place)
        os.dup2(fd, self.pool.numbers[place], inheritable=False)
        self._has[place], self._listeners[place] = generation, listener

    def _forget(self, place: int) -> None:
        """Whatever this process has had at the place."""
        kept, self._kept[place] = self._kept[place], None
        if kept is not None:
            kept.connection = None
            kept.detach()

    def _let_go(self, place: int, generation: int = 0) -> None:
        with self._lock:
            if generation in {0, self._has.get(place)}:
                self._forget(place)
                self._has.pop(place, None)
                with contextlib.suppress(OSError):  # the app has lowered the limit
                    os.dup2(self.pool.null, self.pool.numbers[place], inheritable=False)


def _reserve(beside: int) -> tuple[list[int], int]:
    """Numbers that are free in every process, for they are taken; and the descriptor that takes them.

    That is the lowest of all: those below are for what a process opens later.

    The limit rises by as many, and by the `beside` that the pool needs itself, if it may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, soft + ROOM + beside)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    room = min(ROOM, max(limit - soft - beside, limit // SHARE))
    first = min(FIRST, limit - room - beside)
    null = _at(max(0, first), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
    found: list[int] = []
    with contextlib.suppress(OSError):
        while len(found) < room:
            found.append(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, null))
    return found, null


def _mailbox(lowest: int) -> tuple[socket.socket, socket.socket]:
    """Where a process reads, and where all others write."""
    read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read.setblocking(False)
    write.setblocking(False)
    return socket.socket(fileno=_at(lowest, read.detach())), socket.socket(fileno=_at(lowest, write.detach()))


def _at(lowest: int, fd: int) -> int:
    """The same under a number from there on, if that is allowed."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:
        return fd
    os.close(fd)
    return moved
