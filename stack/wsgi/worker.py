"""One worker process: N threads and one epoll between them.

Listening sockets and waiting connections are in the same epoll. A free thread takes whatever is ready: it accepts one
connection and serves it, or goes on with a kept-alive one. So nothing waits behind a slow request while a thread of
the process is free, and a process whose threads are all busy accepts nothing: the other processes do.

Who owns a connection: the `waiting` dict, by descriptor. Whoever pops it from there (atomic in CPython) has it alone,
until it is put back. Descriptors are armed one-shot, so an event is delivered once; a stale one, for a number that
has been used again meanwhile, only makes its thread look in vain.

The main thread serves nothing. It takes signals, closes connections whose deadline has passed, watches for requests
that do not get on, and drains: no thread loses its request to any of that. It drains in two ways: at SIGTERM the whole
server ends, and what is queued is accepted; at LEAVE a successor has taken its place already, and the queue is others'.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from importlib import invalidate_caches
from typing import TYPE_CHECKING, Any

from . import log
from .access import identity
from .application import load
from .connection import Connection, Service
from .environ import Origin, request_line
from .process import die_with
from .protocol import Protocol
from .state import RECENT, REQUESTS
from .static import Static

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .access import Access
    from .address import Listener
    from .arguments import Settings
    from .state import Tally

LOAD_FAILED = 3  # exit code of a worker that cannot load the app or have its threads, and of the master then
TIMED_OUT = 4  # exit code of a worker whose request did not get on, once its other requests are done
TICK = 1.0  # seconds between two looks at the deadlines
DRAIN_TICK = 0.02  # seconds between two looks at whether all is done
DRAIN_IDLE = 5.0  # seconds that an idle connection is left to its peer, to close or to use once more, while draining
NO_DESCRIPTORS_PAUSE = 0.05  # seconds to wait where no descriptor is free

# One-shot: an event wakes one thread, which arms the socket again once it has accepted. Without that all idle threads
# wake for each connection. Not EPOLLEXCLUSIVE: it wakes one process, whose thread may take another event first.
LISTEN = select.EPOLLIN | select.EPOLLONESHOT

READY = 1  # what a worker tells the master: with its pid, as REPORT packs them
RETIRING = 2
LEFT = 3  # it accepts nothing any more
REPORT = struct.Struct("=iB")

FEWER = "fewer --workers or --threads, or a higher limit (ulimit -u and -v, pids.max of the control group)"

SHOW = signal.SIGQUIT  # has it write the stacks of all its threads to the log, whatever holds the interpreter
LEAVE = signal.SIGUSR2  # tells a worker whose place has been taken to finish what it has
REOPEN = signal.SIGUSR1  # tells it to open the logs again


@dataclass(frozen=True, slots=True)
class Shared:
    """What a worker has of its master's, from before the fork.

    `master` is its pid, `report` a pipe to it. `first_to_tell` is a pipe with one byte: of several workers that fail to
    load the app, the one that gets it writes the traceback. `app` is there if the master has loaded it.
    """

    master: int
    report: int
    first_to_tell: int
    tally: Tally
    access: Access | None = None
    app: Callable[..., Any] | None = None


class Worker:
    """One process's share of the server."""

    def __init__(self, settings: Settings, listeners: list[Listener], shared: Shared) -> None:
        self._settings = settings
        self._shared = shared
        self._listeners = {each.socket.fileno(): each for each in listeners}
        self._origins = {fd: _origin(each, settings) for fd, each in self._listeners.items()}
        self._believing = Origin(trusted=True, multithread=settings.threads > 1, multiprocess=settings.workers > 1)
        self._only = {fd: _only(each, settings) for fd, each in self._listeners.items()}
        self._service = Service(
            _no_app,
            shared.tally.progress,
            [None] * settings.threads,
            max_body=settings.max_body,
            max_head=settings.max_head,
            head_within=settings.head_within,
            access=shared.access,
            tally=shared.tally if settings.state or settings.max_requests else None,
        )
        self._waiting: dict[int, Connection] = {}
        self._busy = [False] * settings.threads
        self._threads: list[threading.Thread] = []
        self._finished = False
        self._loading = True
        self._term = False
        self._leaves = False
        self._reopens = False
        self._stuck: set[int] = set()
        self._totals = deque([(time.monotonic(), 0.0)], RECENT + 1)

    def run(self) -> int:
        """Serve until told to stop; the process's exit code. The caller has blocked the signals."""
        self._take_signals()
        try:
            invalidate_caches()  # the master may have looked into a directory that has new modules since
            app = load(self._settings.app) if self._shared.app is None else self._shared.app
            self._service.app = Static(app, self._settings.static) if self._settings.static else app
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a module is a failure to load too
            self._loading = False  # the master may stop us for another worker's failure: who is to tell must get to it
            self._say_once(f"cannot load {self._settings.app}", error)
            return LOAD_FAILED
        self._loading = False
        # Once more: an app that has changed its user meanwhile has ended the first promise.
        die_with(self._shared.master)
        self._open()
        if not self._start_threads():
            return LOAD_FAILED
        self._tell(READY)  # before the first answer, so that the master knows no later than a client
        for fd in self._listeners:
            self._epoll.register(fd, LISTEN)
        self._keep()
        return self._drain()

    def _take_signals(self) -> None:
        self._signals, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        for number in (signal.SIGINT, signal.SIGHUP):  # for the master to act on; a terminal sends them to all
            signal.signal(number, _ignore)
        signal.signal(LEAVE, self._on_leave)
        signal.signal(REOPEN, self._on_reopen)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the master has blocked what it handles, around the fork
        faulthandler.enable()
        faulthandler.register(SHOW, 2)  # in C, so that it needs no thread of Python's to run

    def _on_term(self, number: int, frame: object) -> None:  # noqa: ARG002 - the form of a handler
        if self._loading:  # in the midst of an import, which may catch whatever is raised; nothing is in hand
            os._exit(0)
        self._term = True

    def _on_leave(self, number: int, frame: object) -> None:  # noqa: ARG002 - the form of a handler
        self._leaves = True

    def _on_reopen(self, number: int, frame: object) -> None:  # noqa: ARG002 - the form of a handler
        self._reopens = True

    def _open(self) -> None:
        self._epoll = select.epoll()
        self._finish_read, self._finish_write = os.pipe2(os.O_CLOEXEC)
        self._epoll.register(self._finish_read, select.EPOLLIN)

    def _start_threads(self) -> bool:
        for index in range(self._settings.threads):
            thread = threading.Thread(target=self._serve, args=(index,), name=f"request-{index}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._say_once(f"thread {index + 1} of {self._settings.threads}: {error}; {FEWER}")
                return False
            self._threads.append(thread)
        return True

    def _say_once(self, text: str, error: BaseException | None = None) -> None:
        """Say why this worker cannot serve, unless another has said so: they fail alike."""
        with contextlib.suppress(BlockingIOError):
            if os.read(self._shared.first_to_tell, 1):
                if error is not None:
                    log.failure(text, error)
                else:
                    log.line(text)

    def _tell(self, what: int) -> None:
        os.write(self._shared.report, REPORT.pack(os.getpid(), what))

    # The threads.

    def _serve(self, index: int) -> None:
        """The life of a thread."""
        epoll, listeners, waiting, busy = self._epoll, self._listeners, self._waiting, self._busy
        while not self._finished:
            try:
                for fd, _ in epoll.poll(-1, 1):
                    busy[index] = True
                    if fd in listeners:
                        self._accept(fd, index)
                    else:
                        connection = waiting.pop(fd, None)
                        if connection is not None:
                            self._advance(connection, index)
            except BaseException as error:  # noqa: BLE001 - a thread less is a server that slowly stops answering
                log.failure("an error of the server itself", error)
            busy[index] = False

    def _accept(self, fd: int, index: int) -> None:
        """Accept one connection and go on with it at once: what it asks is mostly there already."""
        try:
            connection = self._accepted(fd)
        finally:
            with contextlib.suppress(OSError):  # left meanwhile, by _empty
                self._epoll.modify(fd, LISTEN)
        if connection is not None:
            self._advance(connection, index)

    def _accepted(self, fd: int) -> Connection | None:
        """The next connection of a listening socket; None if there is none, or none any more."""
        listener = self._listeners.get(fd)
        if listener is None:
            return None
        try:
            sock, peer = listener.socket.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                time.sleep(NO_DESCRIPTORS_PAUSE)  # it stays in the queue; a request that ends makes room
            return None
        return self._connection(sock, peer, fd)

    def _connection(self, sock: socket.socket, peer: object, fd: int) -> Connection:
        """What was accepted from a listening socket."""
        origin = self._origins[fd]
        if isinstance(peer, tuple) and peer[0] in self._settings.forwarded_from:
            origin = self._believing
        return Connection(sock, peer, origin, self._service, self._only[fd])

    def _advance(self, connection: Connection, index: int) -> None:
        stays = False
        try:
            stays = connection.advance(index)
        finally:
            if not stays:
                connection.close()
        if stays:
            self._wait_for(connection)

    def _wait_for(self, connection: Connection) -> None:
        """Give the connection up until something arrives. It must not be touched after."""
        fd = connection.sock.fileno()
        registered, connection.registered = connection.registered, True
        self._waiting[fd] = connection
        arm = self._epoll.modify if registered else self._epoll.register
        arm(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT)

    # The main thread.

    def _keep(self) -> None:
        """Look after things until it is time to drain."""
        while not self._term and not self._leaves and not self._is_spent:
            self._pause(self._until_look(time.monotonic()))
            self._look(time.monotonic())

    @property
    def _is_spent(self) -> bool:
        """Whether this process had better be replaced."""
        return bool(self._stuck) or self._service.exhausted

    def _until_look(self, now: float) -> float:
        """Seconds to the next look: in time for a stuck request, or the master takes this process for stuck."""
        timeout = self._settings.timeout
        if not timeout:
            return TICK
        started = [since for since in self._service.progress if since]
        return min(TICK, timeout, max(0.0, min(started, default=now) + timeout - now))

    def _pause(self, seconds: float) -> None:
        """Wait, or for a signal."""
        if select.select([self._signals], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._signals, 512)

    def _look(self, now: float) -> None:
        """Open the logs again if told to, close what has waited for too long, see whether a request is stuck."""
        if self._reopens:
            self._reopens = False
            log.reopen(self._settings.log_file, self._shared.access)
        if now - self._totals[-1][0] >= TICK / 2:
            self._totals.append((now, self._shared.tally.total(REQUESTS)))
            (before, first), (after, last) = self._totals[0], self._totals[-1]
            self._shared.tally.rate = (last - first) / (after - before)
        for fd, connection in list(self._waiting.items()):
            if now >= connection.deadline and self._waiting.pop(fd, None) is connection:
                connection.expire()
        if self._settings.timeout:
            for index, since in enumerate(self._service.progress):
                if since and now - since >= self._settings.timeout and index not in self._stuck:
                    self._stuck.add(index)
                    self._service.draining = True
                    self._show(index, now - since)

    def _show(self, index: int, seconds: float) -> None:
        """Write down what a thread is stuck in."""
        environ = self._service.current[index]
        ident = self._threads[index].ident
        frame = sys._current_frames().get(ident or 0)  # noqa: SLF001 - the documented way to another thread's stack
        stack = "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""
        line, known = (request_line(environ), identity(environ)) if environ is not None else ("a request", "request ?")
        log.line(f"{line}: no progress for {seconds:.0f} s; this worker is replaced ({known}). It is here:\n{stack}")

    def _drain(self) -> int:
        """Accept what is queued, finish what is in hand; the exit code."""
        if self._service.exhausted:
            log.line("out of memory: this worker is replaced")
        if self._is_spent:
            self._tell(RETIRING)
        self._service.draining = True
        now = time.monotonic()
        for each in list(self._waiting.values()):
            if each.faces_client:  # however long it has been idle: its next request may be on the way
                each.since = now
        while not self._done(time.monotonic()):
            self._pause(DRAIN_TICK)
            self._look(time.monotonic())
        self._finished = True
        os.write(self._finish_write, b".")
        for index, thread in enumerate(self._threads):
            if index not in self._stuck:
                thread.join()
        for connection in list(self._waiting.values()):
            connection.close()
        return TIMED_OUT if self._stuck else 0

    def _done(self, now: float) -> bool:
        """Whether nothing is left to do but what is stuck."""
        if self._listeners:
            for fd in list(self._listeners):
                self._empty(fd)
            if not self._listeners:
                self._tell(LEFT)
        if self._listeners or any(busy and index not in self._stuck for index, busy in enumerate(self._busy)):
            return False
        grace = min(DRAIN_IDLE, self._settings.stop_within / 2)  # afterwards the master kills
        return all(each.idle and now - each.since >= grace for each in list(self._waiting.values()))

    def _empty(self, fd: int) -> None:
        """Accept all that is queued at a listening socket, and leave the socket, unless no descriptor is free."""
        listener = self._listeners[fd]
        if self._term:
            for _ in range(self._settings.backlog):  # no more can be queued; a successor may share an inherited socket
                try:
                    sock, peer = listener.socket.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                        return
                    continue
                self._wait_for(self._connection(sock, peer, fd))
        del self._listeners[fd]
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        listener.socket.close()


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


def _ignore(number: int, frame: object) -> None:
    """A handler, not SIG_IGN: that would pass on to the programs that the app starts."""


def _no_app(*_: object) -> None:
    raise AssertionError("the app is loaded before the first request")
