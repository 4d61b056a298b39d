"""The threads of one worker, and one epoll between them.

Listening sockets and waiting connections are in the same epoll. A free thread takes whatever is ready: it accepts one
connection and serves it, or goes on with a kept-alive one. So nothing waits behind a slow request while a thread of
the process is free, and a process whose threads are all busy accepts nothing: the other processes do.

Who owns a connection: the `waiting` dict, by descriptor. Whoever pops it from there (atomic in CPython) has it alone,
until it is put back. Descriptors are armed one-shot, so an event is delivered once; a stale one, for a number that
has been used again meanwhile, only makes its thread look in vain.

Kept-alive connections of which nothing is in hand are not there, but in the epoll that all processes share (`pool`),
which in turn is in this one: whichever thread is free, in whichever process, goes on with them.

While requests compute, and wait for nothing, one thread serves alone (`alone`). What nobody can see who is busy is seen
by the main thread, which is called when all of them are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from typing import TYPE_CHECKING

from . import log
from .address import acceptor
from .alone import Alone
from .bulkhead import LOOK, Bulkhead
from .connection import Connection, Service
from .environ import Origin
from .pool import PooledSocket
from .protocol import Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .address import Listener
    from .arguments import Settings
    from .pool import Share

NO_DESCRIPTORS_PAUSE = 0.05  # seconds to wait where no descriptor is free
NARROW = 0.05  # seconds between two looks while all threads are busy at times
NARROW_FOR = 1.0  # seconds since all threads were found busy, until it is not narrow any more
IN_A_ROW = 4  # connections, kept or new, that a thread goes on with before it looks for others
IN_A_ROW_ALONE = 8  # the same where no other thread would look for them: a microsecond less of each request
LOG_AFTER = 0.005  # seconds without work until the access log is written: at once, it took 1.06 instead of 1.01 to 1.05

# One-shot: an event wakes one thread, which arms the socket again once it has accepted. Without that all idle threads
# wake for each connection. Not EPOLLEXCLUSIVE: it wakes one process, whose thread may take another event first.
LISTEN = select.EPOLLIN | select.EPOLLONESHOT
READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT

NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Threads:
    """They serve from `accept` on, until `finish`. All that is not said to be theirs is for the main thread.

    `waiting` are the connections of which nobody has anything in hand.
    """

    def __init__(self, settings: Settings, service: Service, listeners: list[Listener], share: Share) -> None:
        self._settings = settings
        self._service = service
        self._listeners = {each.socket.fileno(): each for each in listeners}
        self._accept = {fd: acceptor(each.socket) for fd, each in self._listeners.items()}
        self._origins = {fd: _origin(each, settings) for fd, each in self._listeners.items()}
        self._believing = Origin(trusted=True, multithread=settings.threads > 1, multiprocess=settings.workers > 1)
        self._only = {fd: _only(each, settings) for fd, each in self._listeners.items()}
        self._share = share
        self._accepting = set(self._listeners)
        self._busy = [False] * settings.threads
        self.waiting: dict[int, Connection] = {}
        self._threads: list[threading.Thread] = []
        self._finished = False
        self._left_pool = False
        self._is_full = False
        self._is_narrow = False
        self._narrow_at = 0.0
        self._look_after = NARROW
        self.alone = Alone(service)
        service.keep = self._keep
        if settings.threads * settings.workers > 1:  # else there is no other to wait for
            service.bulkhead = Bulkhead(self._busy, self.alone, share)
        self._bulkhead = service.bulkhead
        service.gathering.call = self._wake_up

    # For the main thread.

    def start(self, wake: int) -> None:
        """Have them wait; nothing is accepted yet. `wake` is the writing end of what the main thread waits at.

        Raises:
            RuntimeError: one of them cannot be started.
        """
        self._wake = wake
        self._epoll = select.epoll()
        self._finish_read, self._finish_write = os.pipe2(os.O_CLOEXEC)
        self._epoll.register(self._finish_read, select.EPOLLIN)
        for index in range(self._settings.threads):
            thread = threading.Thread(target=self._serve, args=(index,), name=f"request-{index}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise RuntimeError(f"thread {index + 1} of {self._settings.threads}: {error}") from error
            self._threads.append(thread)
        self.alone.begin(self._threads)

    def accept(self) -> None:
        """From now on they do."""
        self._share.tell(free=True)
        for fd in (*self._accepting, self._share.pool.epoll.fileno()):
            self._epoll.register(fd, LISTEN)

    def ident(self, index: int) -> int:
        """By what the interpreter knows a thread."""
        return self._threads[index].ident or 0

    @property
    def look_within(self) -> float:
        """Seconds until the next `look`."""
        within = self._service.gathering.within(time.monotonic())
        return min(within, self._look_after) if self._is_narrow else within

    def look(self, now: float) -> None:
        """See to what they cannot see to while they are busy."""
        self._service.gathering.flush(now)
        if not self._is_narrow:
            return
        self.alone.judge(now)
        if False not in self._busy:
            self._narrow_at = now
        elif now >= self._narrow_at + NARROW_FOR:
            self._is_narrow = False
            self.alone.end()
        self._look_after = self.alone.look_within(now) if self.alone.serves else NARROW

    def expire(self, now: float) -> None:
        """Close what has waited for too long, and let go of what other processes have ended."""
        for fd, connection in list(self.waiting.items()):
            if now >= connection.deadline and self.waiting.pop(fd, None) is connection:
                connection.expire()
        self._share.sweep()

    def drain(self, now: float) -> None:
        """From now on connections end after an answer; `done` tells when all have."""
        self._service.draining = True
        self._share.tell(free=False)
        self.alone.end()
        self._share.drain(now)
        for each in list(self.waiting.values()):
            if each.faces_client:  # however long it has been idle: its next request may be on the way
                each.since = now

    def leave(self, *, empty: bool) -> bool:
        """Leave the listening sockets, and what is queued there to others; whether it is done.

        `empty`: accept it before, and go on with what has been kept. That takes longer where no descriptor is free.
        """
        if not empty and not self._left_pool:
            self._left_pool = True
            self._epoll.unregister(self._share.pool.epoll)
        for fd in list(self._accepting):
            if not empty or self._empty(fd):
                self._leave(fd)
        return not self._accepting

    def done(self, now: float, stuck: set[int], grace: float) -> bool:
        """Whether nothing is left to do but what is `stuck`.

        An idle connection is left for `grace` seconds to its peer, to close it or to use it once more.
        """
        if any(busy and index not in stuck for index, busy in enumerate(self._busy)):
            return False
        if self._bulkhead.held and len(stuck) < len(self._busy):
            return False
        if not self._left_pool and not self._share.quiet(now, grace):
            return False
        return all(each.idle and now - each.since >= grace for each in list(self.waiting.values()))

    def finish(self, stuck: set[int]) -> None:
        """End them, and their connections. What is `stuck` ends with the process."""
        self._finished = True
        os.write(self._finish_write, b".")
        for index, thread in enumerate(self._threads):
            if index not in stuck:
                thread.join()
        for connection in list(self.waiting.values()):
            connection.close()
        if self._service.access is not None:
            self._service.access.flush()

    def _empty(self, fd: int) -> bool:
        """Accept all that is queued; whether it is, or no descriptor is free."""
        for _ in range(self._settings.backlog):  # no more can be queued; a successor may share an inherited socket
            try:
                connection = self._accepted(fd)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    return False
                continue
            self._wait_for(connection)
        return True

    def _leave(self, fd: int) -> None:
        self._accepting.discard(fd)
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        self._accept.pop(fd, None)
        listener = self._listeners.pop(fd, None)
        if listener is not None:
            listener.socket.close()

    # The threads.

    def _serve(self, index: int) -> None:
        """The life of a thread."""
        epoll, accepting, waiting, service = self._epoll, self._accepting, self.waiting, self._service
        alone, busy, shared = self.alone, self._busy, self._share.pool.epoll.fileno()
        held = self._bulkhead.held
        unwritten = () if service.access is None else service.access.pending
        while not self._finished:
            if alone.serves and index:
                busy[index] = True
                alone.wait()
                busy[index] = False
                continue
            try:
                if held:
                    self._go_on_held(index)
                events = self._soon() if unwritten and not held else ()
                for fd, _ in events or epoll.poll(LOOK if held else -1, 1):
                    self._begins(index)
                    if fd == shared:
                        self._go_on(fd, index, self._taken)
                    elif fd in accepting:
                        self._go_on(fd, index, self._new)
                    else:
                        connection = waiting.pop(fd, None)
                        if connection is not None:
                            self._advance(connection, index)
            except BaseException as error:  # noqa: BLE001 - a thread less is a server that slowly stops answering
                log.failure("an error of the server itself", error)
            self._rests(index)

    def _begins(self, index: int) -> None:
        """This thread has something in hand."""
        self._busy[index] = True
        if False not in self._busy:
            if not self._is_full:
                self._is_full = True
                self._share.tell(free=False)
            if not self._is_narrow:
                self._call()

    def _rests(self, index: int) -> None:
        """It has nothing any more."""
        self._busy[index] = False
        if self._is_full:
            self._is_full = False
            self._share.tell(free=not self._service.draining)

    def _soon(self) -> list[tuple[int, int]]:
        """What is ready before long; if nothing is, there is time for the access log."""
        events = self._epoll.poll(LOG_AFTER, 1)
        if not events and self._service.access is not None:
            self._service.access.flush()
        return events

    def _call(self) -> None:
        """All are busy: the main thread shall look at them from now on."""
        self._narrow_at = time.monotonic()
        self._is_narrow = True
        self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b".")

    def _go_on(self, fd: int, index: int, get: Callable[[int], Connection | None]) -> None:
        """Go on with a connection at once: what it asks is mostly there already. And so with some that follow it."""
        try:
            connection = get(fd)
        finally:
            self._arm(fd)
        left = IN_A_ROW_ALONE if self.alone.serves else IN_A_ROW
        while connection is not None:
            self._advance(connection, index)
            left -= 1
            connection = get(fd) if left else None

    def _go_on_held(self, index: int) -> None:
        """Go on with a slow request that has been held, if it need not wait any more."""
        connection = self._bulkhead.due()
        if connection is not None:
            self._begins(index)
            self._advance(connection, index)
            self._rests(index)

    def _arm(self, fd: int) -> None:
        try:  # noqa: SIM105 - contextlib.suppress takes five times as long as the rest
            self._epoll.modify(fd, LISTEN)
        except OSError:  # left meanwhile
            pass

    def _new(self, fd: int) -> Connection | None:
        """The next connection of a listening socket, if there is one."""
        try:
            return self._accepted(fd)
        except BlockingIOError:
            pass
        except OSError as error:
            _pause(error)
        return None

    def _accepted(self, fd: int) -> Connection:
        """The next connection of a listening socket.

        Raises:
            BlockingIOError: there is none, or none any more.
            OSError: see accept().
        """
        accept = self._accept.get(fd)
        if accept is None:  # left meanwhile
            raise BlockingIOError
        sock, peer = accept()
        return self._connection(sock, peer, fd)

    def _taken(self, fd: int) -> Connection | None:  # noqa: ARG002 - the form of _new
        """The next connection of the pool, if there is one."""
        try:
            kept = self._share.take()
            return None if kept is None else kept.connection or self._met(kept)
        except OSError as error:
            _pause(error)
        return None

    def _met(self, kept: PooledSocket) -> Connection:
        """Go on with a connection that this process has not had in hand before."""
        try:
            kept.connection = self._connection(kept, kept.getpeername(), kept.listener)
        except BaseException:  # its peer has gone, or there is no memory
            kept.close()
            raise
        return kept.connection

    def _connection(self, sock: socket.SocketType, peer: object, listener: int) -> Connection:
        origin = self._origins[listener]
        if isinstance(peer, tuple) and peer[0] in self._settings.forwarded_from:
            origin = self._believing
        return Connection(sock, peer, origin, self._service, self._only[listener], listener)

    def _advance(self, connection: Connection, index: int) -> None:
        stays = False
        try:
            stays = connection.advance(index)
        finally:
            if not stays:
                connection.close()
        if not stays:
            return
        if connection.held:  # by now: before this whoever is free must not have it
            self._bulkhead.held.append(connection)
        else:
            self._wait_for(connection)

    def _wait_for(self, connection: Connection) -> None:
        """Give the connection up until something arrives. It must not be touched after."""
        sock = connection.sock
        if isinstance(sock, PooledSocket) and connection.rests:
            if connection.registered:
                self._unregister(connection)
            self._share.put_back(sock, connection.since)
        else:
            fd = sock.fileno()
            registered, connection.registered = connection.registered, True
            self.waiting[fd] = connection
            arm = self._epoll.modify if registered else self._epoll.register
            arm(fd, READ)

    def _keep(self, connection: Connection) -> bool:
        """Before its first answer: have whoever is free go on with it then, in whatever process; or it shall end."""
        sock = connection.sock
        if isinstance(sock, PooledSocket):
            return True
        kept = self._share.put(sock, connection.listener, faces=connection.faces_client)
        if kept is None:
            return False
        if connection.registered:
            self._unregister(connection)
        sock.close()
        connection.sock, kept.connection = kept, connection
        return True

    def _unregister(self, connection: Connection) -> None:
        """Its descriptor lives on elsewhere: without this its entry would, too."""
        connection.registered = False
        self._epoll.unregister(connection.sock)


def _pause(error: OSError) -> None:
    """Where no descriptor is free: the connection stays in the queue, and a request that ends makes room."""
    if error.errno in NO_DESCRIPTORS:
        time.sleep(NO_DESCRIPTORS_PAUSE)


def _origin(listener: Listener, settings: Settings) -> Origin:
    several = settings.threads > 1, settings.workers > 1
    if listener.unix:
        return Origin(trusted=_private(listener, settings), multithread=several[0], multiprocess=several[1])
    host, port = listener.socket.getsockname()[:2]
    return Origin(trusted=False, name=host, port=str(port), multithread=several[0], multiprocess=several[1])


def _only(listener: Listener, settings: Settings) -> Protocol | None:
    """The protocol that a listening socket takes; None to tell by the first byte."""
    if settings.protocol != "auto":
        return Protocol(settings.protocol)
    return None if _private(listener, settings) else Protocol.HTTP


def _private(listener: Listener, settings: Settings) -> bool:
    """Whether all that can connect may be believed as the web server is."""
    return listener.unix and (not listener.open_to_all or settings.forwarded_from.unix)
