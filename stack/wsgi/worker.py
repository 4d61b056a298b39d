"""One worker process: loads the app, has its threads serve, and looks after them.

The main thread serves nothing. It takes signals, closes connections whose deadline has passed, watches for requests
that do not get on, and drains: no thread loses its request to any of that. It drains in two ways: at SIGTERM the whole
server ends, and what is queued is accepted; at LEAVE a successor has taken its place already, and the queue is others'.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections import deque
from importlib import invalidate_caches
from typing import TYPE_CHECKING, Any, NamedTuple

from . import log
from .access import identity
from .application import load
from .connection import Service
from .environ import request_line
from .process import die_with, few_arenas
from .state import RECENT, REQUESTS
from .threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from .access import Access
    from .address import Listener
    from .arguments import Settings
    from .pool import Share
    from .state import Tally

LOAD_FAILED = 3  # exit code of a worker that cannot load the app or have its threads, and of the master then
TIMED_OUT = 4  # exit code of a worker whose request did not get on, once its other requests are done
TICK = 1.0  # seconds between two looks at the deadlines
DRAIN_TICK = 0.02  # seconds between two looks at whether all is done
DRAIN_IDLE = 5.0  # seconds that an idle connection is left to its peer, to close or to use once more, while draining
READY = 1  # what a worker tells the master: with its pid, as REPORT packs them
RETIRING = 2
LEFT = 3  # it accepts nothing any more
REPORT = struct.Struct("=iB")

FEWER = "fewer --workers or --threads, or a higher limit (ulimit -u and -v, pids.max of the control group)"

SHOW = signal.SIGQUIT  # has it write the stacks of all its threads to the log, whatever holds the interpreter
LEAVE = signal.SIGUSR2  # tells a worker whose place has been taken to finish what it has
REOPEN = signal.SIGUSR1  # tells it to open the logs again


class Shared(NamedTuple):
    """What a worker has of its master's, from before the fork.

    `master` is its pid, `report` a pipe to it. `first_to_tell` is a pipe with one byte: of several workers that fail to
    load the app, the one that gets it writes the traceback. `share` is this worker's part in the pool of connections.
    `app` is there if the master has loaded it.
    """

    master: int
    report: int
    first_to_tell: int
    tally: Tally
    share: Share
    access: Access | None = None
    app: Callable[..., Any] | None = None


class Worker:
    """One process's share of the server."""

    def __init__(self, settings: Settings, listeners: list[Listener], shared: Shared) -> None:
        self._settings = settings
        self._shared = shared
        self._service = Service(
            _no_app,
            shared.tally.progress,
            max_body=settings.max_body,
            max_head=settings.max_head,
            head_within=settings.head_within,
            access=shared.access,
            tally=shared.tally,
        )
        self._threads = Threads(settings, self._service, listeners, shared.share)
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
            self._service.app = _with_static(app, self._settings.static) if self._settings.static else app
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a module is a failure to load too
            self._loading = False  # the master may stop us for another worker's failure: who is to tell must get to it
            self._say_once(f"cannot load {self._settings.app}", error)
            return LOAD_FAILED
        self._loading = False
        # Once more: an app that has changed its user meanwhile has ended the first promise.
        die_with(self._shared.master)
        few_arenas()
        try:
            self._threads.start(self._wake)
        except RuntimeError as error:
            self._say_once(f"{error}; {FEWER}")
            return LOAD_FAILED
        self._tell(READY)  # before the first answer, so that the master knows no later than a client
        self._threads.accept()
        self._keep()
        return self._drain()

    def _take_signals(self) -> None:
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
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
        tick = min(TICK, self._threads.look_within)
        if not timeout:
            return tick
        started = [since for since in self._service.progress if since]
        return min(tick, timeout, max(0.0, min(started, default=now) + timeout - now))

    def _pause(self, seconds: float) -> None:
        """Wait, or until a signal comes or a thread calls."""
        if select.select([self._woken], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 512)

    def _look(self, now: float) -> None:
        """Open the logs again if told to, close what has waited for too long, see whether a request is stuck."""
        if self._reopens:
            self._reopens = False
            log.reopen(self._settings.log_file, self._shared.access)
        if now - self._totals[-1][0] >= TICK / 2:
            self._totals.append((now, self._shared.tally.total(REQUESTS)))
            (before, first), (after, last) = self._totals[0], self._totals[-1]
            self._shared.tally.rate = (last - first) / (after - before)
            self._threads.expire(now)
            if self._shared.access is not None:
                self._shared.access.flush()
        self._threads.look(now)
        if self._settings.timeout:
            for index, since in enumerate(self._service.progress):
                if since and now - since >= self._settings.timeout and index not in self._stuck:
                    self._stuck.add(index)
                    self._service.draining = True
                    self._show(index, now - since)

    def _show(self, index: int, seconds: float) -> None:
        """Write down what a thread is stuck in."""
        environ = self._service.current[index]
        frame = sys._current_frames().get(self._threads.ident(index))  # noqa: SLF001 - the documented way to another thread's stack
        stack = "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""
        line, known = (request_line(environ), identity(environ)) if environ is not None else ("a request", "request ?")
        log.line(f"{line}: no progress for {seconds:.0f} s; this worker is replaced ({known}). It is here:\n{stack}")

    def _drain(self) -> int:
        """Accept what is queued, finish what is in hand; the exit code."""
        if self._service.exhausted:
            log.line("out of memory: this worker is replaced")
        if self._is_spent:
            self._tell(RETIRING)
        self._threads.drain(time.monotonic())
        grace = min(DRAIN_IDLE, self._settings.stop_within / 2)  # afterwards the master kills
        left = False
        while not left or not self._threads.done(time.monotonic(), self._stuck, grace):
            if not left and self._threads.leave(empty=self._term):
                left = True
                self._tell(LEFT)
                continue
            self._pause(min(DRAIN_TICK, self._threads.look_within))
            self._look(time.monotonic())
        self._threads.finish(self._stuck)
        return TIMED_OUT if self._stuck else 0


def _with_static(app: Callable[..., Any], static: tuple[tuple[str, str], ...]) -> Callable[..., Any]:
    from .static import Static  # noqa: PLC0415 - mostly there are none, and it wants email.utils

    return Static(app, static)


def _ignore(number: int, frame: object) -> None:
    """A handler, not SIG_IGN: that would pass on to the programs that the app starts."""


def _no_app(*_: object) -> None:
    raise AssertionError("the app is loaded before the first request")
