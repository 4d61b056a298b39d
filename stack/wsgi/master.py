"""The master: keeps the wanted number of workers, and stops them.

Level triggered: whatever has happened, each round reaps, counts, starts what is missing, and does to each worker
what `fleet` says is due. Signal handlers only note. All addresses are bound before the first fork; workers die with
the master, so that `kill -9` of it leaves nothing behind.

SIGTERM   finish what is queued and in hand, within `stop_within`; exit 0. A second one changes nothing.
SIGINT    the same within a second; exit 130, as a shell would report it.
SIGHUP    noted and ignored: reloading is starting a successor beside, and stopping this one.

A worker that ends before any was ever ready stops everything: with LOAD_FAILED if that was its code, else 1. Later
ones are replaced, at once and then with growing pauses.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..fleet import Act, Child, Policy, State, pause
from . import address, log
from .process import die_with
from .worker import LOAD_FAILED, READY, REPORT, TIMED_OUT, Worker

if TYPE_CHECKING:
    from .address import Listener
    from .arguments import Settings

INTERRUPTED = 130
QUICK = 1.0  # seconds to stop within after SIGINT, and for the other requests beside a stuck one
STUCK_KILL = 1.0  # seconds beyond the timeout, after which a worker that has not noticed by itself is killed
STOPPED_KILL = 3.0  # seconds that a worker may be stopped (SIGSTOP) before it is killed
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(slots=True)
class Kept:
    """A worker as the master knows it. `progress` is shared with it: see `connection.Service`."""

    child: Child
    progress: memoryview[float]
    stopped_at: float | None = None
    retiring: bool = False


class Master:
    """Runs the workers on sockets that are bound already."""

    def __init__(self, settings: Settings, listeners: list[Listener]) -> None:
        self._settings = settings
        self._listeners = listeners
        # Importing takes as long as it takes: who started this server knows how long it may.
        self._policy = Policy(start_within=float("inf"), stop_within=settings.stop_within)
        self._workers: dict[int, Kept] = {}
        self._arrived: list[int] = []  # signals
        self._stopping = False
        self._exit_code = 0
        self._ever_ready = False
        self._failures = 0
        self._retry_at = 0.0

    def run(self) -> int:
        """Keep the workers until told to stop; the exit code."""
        self._open()
        where = ", ".join(_shown(each) for each in self._listeners)
        log.line(f"listening on {where}: {self._settings.workers} workers of {self._settings.threads} threads")
        while True:
            self._obey()
            self._hear(time.monotonic())  # what a worker has said before it ended comes first
            self._reap(time.monotonic())
            if self._stopping and not self._workers:
                break
            self._act(time.monotonic())
            self._wait(time.monotonic())
        for each in self._listeners:
            address.remove(each)
            each.socket.close()
        log.line("stopped")
        return self._exit_code

    def _open(self) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._signals, self._signals_write = os.pipe2(flags)
        self._reports, self._reports_write = os.pipe2(flags)
        self._first_to_tell, self._tell_write = os.pipe2(flags)
        os.write(self._tell_write, b".")
        signal.set_wakeup_fd(self._signals_write, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:  # noqa: ARG002 - the form of a handler
        self._arrived.append(number)

    # One round.

    def _obey(self) -> None:
        """Do as the signals say."""
        while self._arrived:
            number = self._arrived.pop(0)
            if number == signal.SIGHUP:
                log.line("SIGHUP is ignored: to reload, start a successor and stop this one with SIGTERM")
            elif number == signal.SIGINT:
                self._policy = replace(self._policy, stop_within=min(QUICK, self._policy.stop_within))
                self._stop(INTERRUPTED, "SIGINT: stopping now")
            elif number == signal.SIGTERM:
                self._stop(0, f"SIGTERM: finishing what is in hand, within {self._settings.stop_within:g} s")

    def _stop(self, code: int, why: str) -> None:
        if code == INTERRUPTED or not self._stopping:
            self._exit_code = code
        if not self._stopping:
            log.line(why)
        self._stopping = True
        for each in self._listeners:  # so that nothing enters a queue that nobody will empty
            address.refuse_new(each)
            address.remove(each)

    def _reap(self, now: float) -> None:
        """Take note of workers that have ended, were stopped, or go on."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if not pid:
                return
            kept = self._workers.get(pid)
            if kept is None:
                continue
            if os.WIFSTOPPED(status):
                log.line(f"worker {pid} is stopped by {signal.Signals(os.WSTOPSIG(status)).name}")
                kept.stopped_at = now
            elif os.WIFCONTINUED(status):
                kept.stopped_at = None
            else:
                self._ended(pid, self._workers.pop(pid), os.waitstatus_to_exitcode(status), now)

    def _ended(self, pid: int, kept: Kept, code: int, now: float) -> None:
        if self._stopping:
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        if not self._ever_ready:
            log.line(f"worker {pid} {how} before it was ready; giving up")
            self._stop(LOAD_FAILED if code == LOAD_FAILED else 1, "stopping")
            return
        if code == LOAD_FAILED:
            with contextlib.suppress(BlockingIOError):
                os.write(self._tell_write, b".")
        self._failures = 1 if kept.child.was_stable(self._policy, now) else self._failures + 1
        wait = pause(self._policy, self._failures)
        self._retry_at = now + wait
        then = f"replaced in {wait:g} s" if wait else "replaced"
        if kept.retiring and code in {0, TIMED_OUT}:
            then = "was replaced"
        log.line(f"worker {pid} {how}; {then}")

    def _hear(self, now: float) -> None:
        """Take note of what workers say."""
        with contextlib.suppress(BlockingIOError):
            while True:
                pid, what = REPORT.unpack(os.read(self._reports, REPORT.size))
                kept = self._workers.get(pid)
                if what == READY:
                    self._ever_ready = True
                if kept is None:
                    continue
                if what == READY:
                    kept.child = replace(kept.child, ready_at=now)
                elif kept.child.asked_at is None:
                    kept.retiring = True
                    kept.child = kept.child.after(Act.ASK, now)

    def _act(self, now: float) -> None:
        """Ask, kill and spawn what is due."""
        for pid, kept in self._workers.items():
            act = kept.child.due(self._patience(kept), now, wanted=not self._stopping)
            if act is None and kept.child.state is not State.KILLED:
                act = self._lost(pid, kept, now)
            if act is not None:
                os.kill(pid, signal.SIGTERM if act is Act.ASK else signal.SIGKILL)
                if act is Act.KILL and self._stopping and kept.child.killed_at is None:
                    log.line(f"worker {pid} was not done in time; killed")
                kept.child = kept.child.after(act, now)
        while not self._stopping and now >= self._retry_at and self._missing():
            self._spawn(now)

    def _missing(self) -> int:
        serving = sum(each.child.state in {State.STARTING, State.READY} for each in self._workers.values())
        return self._settings.workers - serving

    def _patience(self, kept: Kept) -> Policy:
        return replace(self._policy, stop_within=QUICK) if kept.retiring else self._policy

    def _lost(self, pid: int, kept: Kept, now: float) -> Act | None:
        """Kill a worker that cannot be asked: stopped, or stuck where no other thread of it runs."""
        if kept.stopped_at is not None and now >= kept.stopped_at + STOPPED_KILL:
            log.line(f"worker {pid} has been stopped for {STOPPED_KILL:g} s; killed")
            return Act.KILL
        stuck_at = self._stuck_at(kept)
        if stuck_at is not None and now >= stuck_at and not kept.retiring:
            log.line(f"worker {pid} has a request without progress, and does not notice (stuck in C code?); killed")
            return Act.KILL
        return None

    def _stuck_at(self, kept: Kept) -> float | None:
        """When the oldest request of a worker is overdue even for being noticed."""
        busy = [since for since in kept.progress if since]
        if not self._settings.timeout or not busy:
            return None
        return min(busy) + self._settings.timeout + STUCK_KILL

    def _wait(self, now: float) -> None:
        """Until something happens, or becomes due."""
        moments = [now + self._settings.timeout + STUCK_KILL] if self._settings.timeout else []
        for kept in self._workers.values():
            deadline = kept.child.deadline(self._patience(kept), wanted=not self._stopping)
            if deadline is not None:
                moments.append(deadline[0])
            if kept.child.state is not State.KILLED and not kept.retiring:
                moments += [each for each in [self._stuck_at(kept)] if each is not None]
            if kept.child.state is not State.KILLED and kept.stopped_at is not None:
                moments.append(kept.stopped_at + STOPPED_KILL)
        if not self._stopping and self._missing():
            moments.append(self._retry_at)
        until = min(moments, default=float("inf"))
        seconds = None if until == float("inf") else max(0.0, until - now)
        if self._arrived:
            seconds = 0.0
        if self._signals in select.select([self._signals, self._reports], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._signals, 512)

    def _spawn(self, now: float) -> None:
        """Fork a worker."""
        shared = mmap.mmap(-1, 8 * self._settings.threads)
        progress = memoryview(shared).cast("d")
        master = os.getpid()
        # Blocked until the worker has handlers of its own: what is sent to it meanwhile must not be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._workers[pid] = Kept(Child(pid=pid, spawned_at=now), progress)
            return
        code = 1
        try:
            die_with(master)
            self._workers.clear()
            worker = Worker(self._settings, self._listeners, self._reports_write, progress, self._first_to_tell)
            code = worker.run()
            # Not sys.exit(): it would wait for whatever threads the app has left running.
            atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to run them
        except BaseException as error:  # noqa: BLE001 - must never go on as a second master
            log.failure("an error of the server itself", error)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)


def _shown(listener: Listener) -> str:
    """The address as it became: a port 0 has a number now."""
    if listener.unix:
        return listener.address.text
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
