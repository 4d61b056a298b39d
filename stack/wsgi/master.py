"""The master: keeps the wanted number of workers, and stops them.

Level triggered: whatever has happened, each round reaps, counts, starts what is missing, and does to each worker
what `fleet` says is due. Signal handlers only note. All addresses are bound before the first fork; workers die with
the master, so that `kill -9` of it leaves nothing behind.

SIGTERM   finish what is queued and in hand, within `stop_within`; exit 0. A second one changes nothing.
SIGINT    the same within a second; exit 130, as a shell would report it.
SIGHUP    replace the workers, one by one, by such with the code as it is now; what does not load changes nothing.
SIGUSR1   open the logs again.

A worker is `due` to be replaced when it has old code, had its requests or has too much memory: one more is spawned,
and when that is ready, one that is due is told to leave. So there are never fewer than wanted for its sake. That all
have the new code is said once no other accepts anything any more.

A worker that ends before any was ever ready stops everything: with LOAD_FAILED if that was its code, else 1. Later
ones are replaced, at once and then with growing pauses.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import random
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from ..child import Act, Child, Policy, State, pause
from . import address, log, preload
from .application import load
from .keeper import Keeper
from .notify import Manager
from .process import die_with
from .state import REQUESTS, Tally, proportional, resident
from .warm import warm
from .worker import FEWER, LEAVE, LEFT, LOAD_FAILED, READY, REOPEN, REPORT, SHOW, TICK, TIMED_OUT, Shared, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from .access import Access
    from .address import Listener
    from .arguments import Settings
    from .state import Teller

INTERRUPTED = 130
QUICK = 1.0  # seconds to stop within after SIGINT, and for the other requests beside a stuck one
STUCK_SHOW = 0.5  # seconds beyond the timeout, after which a worker that has not noticed by itself shows its stacks
SHOWN_KILL = 0.5  # seconds that it has for that; then it is killed
STOPPED_KILL = 3.0  # seconds that a worker may be stopped (SIGSTOP) before it is killed
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, REOPEN)
OLD_CODE = "SIGHUP"


class WorkerProcess:
    """A worker as the master knows it. `tally` is shared with it; `due` is why it shall be replaced, "" if it need not.

    `code` counts the loads of the code, from 1; `number` is its own in the pool; `most` is how many requests it may
    have, 0 for any number.
    """

    due = ""
    stopped_at: float | None = None
    shown_at: float | None = None
    retiring = False
    left = False  # whether it accepts nothing any more
    fits = True  # whether it had less memory than --max-memory when it was ready

    def __init__(self, child: Child, tally: Tally, code: int, number: int, most: int) -> None:
        self.child = child
        self.tally = tally
        self.code = code
        self.number = number
        self.most = most


class Master:
    """Runs the workers on sockets that are bound already."""

    def __init__(
        self, settings: Settings, listeners: list[Listener], access: Access | None = None, teller: Teller | None = None
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._access = access
        self._teller = teller
        self._manager = Manager()
        self._keeper = Keeper(settings.workers)
        self._app: Callable[..., Any] | None = None
        self._since = time.time()
        self._code = 1
        self._loading = False
        self._reloading = False
        self._told_ready = False
        self._looked_at = time.monotonic()
        # Importing takes as long as it takes: who started this server knows how long it may.
        self._policy = Policy(start_within=float("inf"), stop_within=settings.stop_within)
        self._workers: dict[int, WorkerProcess] = {}
        self._arrived: list[int] = []  # signals
        self._stopping = False
        self._exit_code = 0
        self._ever_ready = False
        self._failures = 0
        self._retry_at = 0.0

    def run(self) -> int:
        """Keep the workers until told to stop; the exit code."""
        self._open()
        if not self._settings.preload:
            warm(self._settings.workers)
        elif not self._preload():
            return self._close(LOAD_FAILED)
        where = ", ".join(_where(each) for each in self._listeners)
        log.line(f"listening on {where}: {self._settings.workers} workers of {self._settings.threads} threads")
        while True:
            self._obey()
            self._hear(time.monotonic())  # what a worker has said before it ended comes first
            self._reap(time.monotonic())
            if self._stopping and not self._workers:
                break
            self._act(time.monotonic())
            self._keeper.look(time.monotonic())
            self._wait(time.monotonic())
        log.line("stopped")
        return self._close(self._exit_code)

    def _close(self, code: int) -> int:
        self._keeper.end_all()
        for each in self._listeners:
            address.remove(each)
            each.socket.close()
        if self._teller is not None:
            self._teller.close()
        return code

    def _open(self) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._signals, self._signals_write = os.pipe2(flags)
        self._reports, self._reports_write = os.pipe2(flags)
        self._awaited = select.poll()  # not select(): the pool's descriptors have numbers that it does not take
        for each in (self._signals, self._reports, self._keeper.told.fileno()):
            self._awaited.register(each, select.POLLIN)
        if self._teller is not None:
            self._awaited.register(self._teller, select.POLLIN)
        self._first_to_tell, self._tell_write = os.pipe2(flags)
        os.write(self._tell_write, b".")
        self._take_signals()

    def _take_signals(self) -> None:
        signal.set_wakeup_fd(self._signals_write, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:  # noqa: ARG002 - the form of a handler
        if self._loading and number in {signal.SIGTERM, signal.SIGINT}:  # in an import, which may take long
            os._exit(self._close(INTERRUPTED if number == signal.SIGINT else 0))
        self._arrived.append(number)

    def _preload(self) -> bool:
        """Load the app here, for all workers; whether it may be shared by them."""
        before = preload.descriptors()
        self._loading = True
        try:
            self._app = load(self._settings.app)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a module is a failure to load too
            log.failure(f"cannot load {self._settings.app}", error)
            return False
        finally:
            self._loading = False
            self._take_signals()  # whatever the app has set up for them
        found = preload.threads() + preload.opened(before)
        if foreign := preload.foreign_threads():
            log.line(f"--preload: the app's libraries have started {foreign} threads, which no worker will have")
        if found:
            what = f"{self._settings.app} has made while it was imported what cannot be shared: {', '.join(found)}"
            if not self._settings.preload_anyway:
                log.line(f"--preload: {what}; make it on the first request, or go without --preload ([server] preload)")
                return False
            log.line(f"--preload-anyway: {what}")
        gc.collect()
        gc.freeze()  # the collector writes to what it looks at, and what is written to is no longer shared
        return True

    # One round.

    def _obey(self) -> None:
        """Do as the signals say."""
        while self._arrived:
            number = self._arrived.pop(0)
            if number == signal.SIGHUP:
                self._reload()
            elif number == REOPEN:
                log.reopen(self._settings.log_file, self._access)
                for pid in self._workers:
                    os.kill(pid, REOPEN)
            elif number == signal.SIGINT:
                self._policy = self._policy._replace(stop_within=min(QUICK, self._policy.stop_within))
                self._stop(INTERRUPTED, "SIGINT: stopping now")
            elif number == signal.SIGTERM:
                self._stop(0, f"SIGTERM: finishing what is in hand, within {self._settings.stop_within:g} s")

    def _reload(self) -> None:
        """Want the code as it is now."""
        if self._stopping:
            return
        if self._settings.preload:
            log.line(
                "SIGHUP: refused, for with --preload the code is loaded once; start a successor, and stop this one"
            )
            return
        log.line("SIGHUP: replacing the workers, one by one")
        self._manager.reloading()
        self._reloading = True
        self._code += 1
        self._failures, self._retry_at = 0, 0.0
        for worker in self._workers.values():
            worker.due = OLD_CODE

    def _end_reload(self, text: str) -> None:
        """The reload is over, one way or the other."""
        self._reloading = False
        log.line(f"SIGHUP: {text}")
        self._manager.ready(text)

    def _stop(self, code: int, why: str) -> None:
        if code == INTERRUPTED or not self._stopping:
            self._exit_code = code
        if not self._stopping:
            log.line(why)
            self._manager.stopping()
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
            worker = self._workers.get(pid)
            if worker is None:
                continue
            if os.WIFSTOPPED(status):
                log.line(f"worker {pid} is stopped by {signal.Signals(os.WSTOPSIG(status)).name}")
                worker.stopped_at = now
            elif os.WIFCONTINUED(status):
                worker.stopped_at = None
            else:
                self._keeper.gone(worker.number)
                self._ended(pid, self._workers.pop(pid), os.waitstatus_to_exitcode(status), now)

    def _ended(self, pid: int, worker: WorkerProcess, code: int, now: float) -> None:
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
        if worker.due and worker.child.asked_at is not None:
            log.line(f"worker {pid} has left ({worker.due})" if code == 0 else f"worker {pid} {how}; it was to leave")
            return
        if self._reloading and worker.child.ready_at is None and worker.child.asked_at is None:
            for each in self._workers.values():
                each.due = "" if each.due == OLD_CODE else each.due
            self._end_reload(f"given up: worker {pid} {how} before it was ready; what serves goes on as it is")
        if worker.stopped_at is None:  # else it did not end by itself
            self._failures = 1 if worker.child.was_stable(self._policy, now) else self._failures + 1
        wait = pause(self._policy, self._failures) if worker.stopped_at is None else 0.0
        self._retry_at = now + wait
        then = f"replaced in {wait:g} s" if wait else "replaced"
        if worker.retiring and code in {0, TIMED_OUT}:
            then = "was replaced"
        log.line(f"worker {pid} {how}; {then}")

    def _hear(self, now: float) -> None:
        """Take note of what workers say."""
        with contextlib.suppress(BlockingIOError):
            while True:
                pid, what = REPORT.unpack(os.read(self._reports, REPORT.size))
                worker = self._workers.get(pid)
                if what == READY:
                    self._ever_ready = True
                if worker is None:
                    continue
                if what == READY:
                    worker.child = worker.child._replace(ready_at=now)
                    self._became_ready(pid, worker)
                elif what == LEFT:
                    worker.left = True
                elif worker.child.asked_at is None:
                    worker.retiring = True
                    worker.child = worker.child.after(Act.ASK, now)

    def _became_ready(self, pid: int, worker: WorkerProcess) -> None:
        most = self._settings.max_memory
        if most and (size := resident(pid)) >= most:
            worker.fits = False
            log.line(f"worker {pid} has {size >> 20} MB before its first request, over --max-memory: it is left alone")
        if not self._told_ready and len(self._ready()) >= self._settings.workers:
            self._told_ready = True
            self._manager.ready(f"{self._settings.workers} workers")

    def _ready(self) -> list[WorkerProcess]:
        return [each for each in self._workers.values() if each.child.state is State.READY]

    def _look(self, now: float) -> None:
        """See which workers have had their share."""
        if not self._looks or now < self._looked_at + TICK:
            return
        self._looked_at = now
        for pid, worker in self._workers.items():
            if worker.due or worker.child.state is not State.READY:
                continue
            if worker.most and worker.tally.total(REQUESTS) >= worker.most:
                worker.due = f"{worker.most} requests"
            elif self._settings.max_memory and worker.fits and (size := resident(pid)) >= self._settings.max_memory:
                worker.due = f"{size >> 20} MB"
            if worker.due:
                log.line(f"worker {pid} has had {worker.due}: to be replaced")

    @property
    def _looks(self) -> bool:
        return bool(self._settings.max_requests or self._settings.max_memory)

    def _relieve(self, now: float) -> None:
        """Tell a worker that is due to leave, once there is one more than wanted."""
        ready = self._ready()
        due = [(pid, each) for pid, each in self._workers.items() if each.due and each in ready]
        if due and len(ready) > self._settings.workers:
            pid, worker = due[0]
            os.kill(pid, LEAVE)
            worker.child = worker.child.after(Act.ASK, now)
        if self._reloading and not any(each.due == OLD_CODE and not each.left for each in self._workers.values()):
            self._end_reload("all workers have the new code")

    def _act(self, now: float) -> None:
        """Ask, kill and spawn what is due."""
        if not self._stopping:
            self._look(now)
            self._relieve(now)
        for pid, worker in self._workers.items():
            act = worker.child.due(self._patience(worker), now, wanted=not self._stopping)
            if act is None and worker.child.state is not State.KILLED:
                act = self._lost(pid, worker, now)
            if act is not None:
                os.kill(pid, signal.SIGTERM if act is Act.ASK else signal.SIGKILL)
                if act is Act.KILL and (self._stopping or worker.due) and worker.child.killed_at is None:
                    log.line(f"worker {pid} was not done in time; killed")
                worker.child = worker.child.after(act, now)
        while not self._stopping and now >= self._retry_at and self._missing():
            self._spawn(now)

    def _missing(self) -> int:
        """How many workers there are too few: one more than wanted shall be there as long as one is due."""
        serving = [each for each in self._workers.values() if _serves(each)]
        return self._settings.workers + any(each.due for each in serving) - len(serving)

    def _patience(self, worker: WorkerProcess) -> Policy:
        return self._policy._replace(stop_within=QUICK) if worker.retiring else self._policy

    def _lost(self, pid: int, worker: WorkerProcess, now: float) -> Act | None:
        """Kill a worker that cannot be asked: stopped, or stuck where no other thread of it runs."""
        if worker.stopped_at is not None and now >= worker.stopped_at + STOPPED_KILL:
            log.line(f"worker {pid} has been stopped for {STOPPED_KILL:g} s; killed")
            return Act.KILL
        stuck_at = self._stuck_at(worker)
        if stuck_at is None or now < stuck_at or worker.retiring:
            worker.shown_at = None
        elif worker.shown_at is None:
            worker.shown_at = now
            if worker.stopped_at is None:
                self._show(pid, worker, now)
        elif now >= worker.shown_at + SHOWN_KILL:
            log.line(f"worker {pid} has not noticed its request without progress; killed")
            return Act.KILL
        return None

    def _stuck_at(self, worker: WorkerProcess) -> float | None:
        """When the oldest request of a worker is overdue even for being noticed."""
        busy = [since for since in worker.tally.progress if since]
        if not self._settings.timeout or not busy:
            return None
        return min(busy) + self._settings.timeout + STUCK_SHOW

    def _show(self, pid: int, worker: WorkerProcess, now: float) -> None:
        """Have what a worker is stuck in written down."""
        requests = ", ".join(worker.tally.overdue(now, self._settings.timeout)) or "a request"
        seconds = self._settings.timeout + STUCK_SHOW
        what = f"no progress for {seconds:g} s, and worker {pid} does not notice (stuck in C code?)"
        log.line(f"{requests}: {what}. Its threads are here, each from its innermost call:")
        os.kill(pid, SHOW)

    def _wait(self, now: float) -> None:
        """Until something happens, or becomes due."""
        moments = [now + self._settings.timeout + STUCK_SHOW] if self._settings.timeout else []
        for worker in self._workers.values():
            deadline = worker.child.deadline(self._patience(worker), wanted=not self._stopping)
            if deadline is not None:
                moments.append(deadline[0])
            if worker.child.state is not State.KILLED and not worker.retiring:
                shown_until = None if worker.shown_at is None else worker.shown_at + SHOWN_KILL
                moments += [each for each in [shown_until or self._stuck_at(worker)] if each is not None]
            if worker.child.state is not State.KILLED and worker.stopped_at is not None:
                moments.append(worker.stopped_at + STOPPED_KILL)
        if not self._stopping and self._missing():
            moments.append(self._retry_at)
        if self._looks and not self._stopping:
            moments.append(self._looked_at + TICK)
        until = min(*moments, self._keeper.due(), float("inf"))
        seconds = None if until == float("inf") else max(0.0, until - now)
        if self._arrived or (self._stopping and not self._workers):
            seconds = 0.0
        arrived = {fd for fd, _ in self._awaited.poll(None if seconds is None else seconds * 1000)}
        if self._signals in arrived:
            with contextlib.suppress(BlockingIOError):
                os.read(self._signals, 512)
        if self._teller is not None and self._teller.fileno() in arrived:
            self._teller.tell(self._shown(time.monotonic()))

    def _shown(self, now: float) -> dict[str, Any]:
        """The state, for whoever asks."""
        return {
            "pid": os.getpid(),
            "since": self._since,
            "code": self._code,
            "stopping": self._stopping,
            "reloading": self._reloading,
            "wanted": self._settings.workers,
            "threads": self._settings.threads,
            "workers": [
                {
                    "pid": pid,
                    "state": worker.child.state.value,
                    "code": worker.code,
                    "due": worker.due,
                    "age": round(now - (worker.child.spawned_at or now), 3),
                    "rss": resident(pid),
                    "pss": proportional(pid),
                    **worker.tally.shown(now),
                }
                for pid, worker in self._workers.items()
            ],
        }

    def _cannot_spawn(self, error: OSError, now: float) -> None:
        """There may be no more processes, or not enough memory for one."""
        log.line(f"worker {len(self._workers) + 1} of {self._settings.workers}: {error.strerror}; {FEWER}")
        if not self._ever_ready:
            self._stop(LOAD_FAILED, "stopping")
        self._failures = max(1, self._failures) + 1
        self._retry_at = now + pause(self._policy, self._failures)

    def _spawn(self, now: float) -> None:
        """Fork a worker."""
        tally = Tally(self._settings.threads)
        most = most_requests(self._settings)
        number = self._keeper.enroll()
        master = os.getpid()
        # Blocked until the worker has handlers of its own: what is sent to it meanwhile must not be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._keeper.gone(number)
            self._cannot_spawn(error, now)
            return
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._workers[pid] = WorkerProcess(Child(pid=pid, spawned_at=now), tally, self._code, number, most)
            return
        code = 1
        try:
            die_with(master)
            self._workers.clear()
            if self._teller is not None:
                self._teller.listener.socket.close()
            tell = self._reports_write, self._first_to_tell
            self._keeper.enter(number)
            shared = Shared(master, *tell, tally, self._keeper, self._access, self._app)
            code = Worker(self._settings, self._listeners, shared).run()
            # Not sys.exit(): it would wait for whatever threads the app has left running.
            atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to run them
        except BaseException as error:  # noqa: BLE001 - must never go on as a second master
            log.failure("an error of the server itself", error)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)


def most_requests(settings: Settings) -> int:
    """How many requests the next worker may have, 0 for any number; by chance, so that not all are due at once."""
    most = settings.max_requests
    return most + random.randint(0, settings.max_requests_jitter) if most else 0  # noqa: S311 - no secret


def _serves(worker: WorkerProcess) -> bool:
    return worker.child.state in {State.STARTING, State.READY}


def _where(listener: Listener) -> str:
    """The address as it became: a port 0 has a number now."""
    if listener.unix:
        return listener.address.text
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
