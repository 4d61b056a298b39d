"""A place for a stack of which nothing may be left: a directory, free ports, and an end to whatever still runs.

A signal interrupts what is done in it once, and only there: making the place and clearing it away are never cut short.
Every process that comes of it is a descendant of ours or becomes our child (we are a subreaper), so all of them can be
ended, whatever they were about to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import psutil

from stack.config import Config, Loaded, Override
from stack.supervisor import place, runner
from stack.webservers import EXTERNAL, PRIVATE

__all__ = ["Sandbox", "overrides"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST = 32  # bytes of a directory for temporary files that leaves room for the names of sockets
LOOK_AGAIN = 0.02  # seconds between two looks at processes that are to end
SETTLED = 3.0  # seconds after the stack in which what it started should have ended by itself
PATIENCE = 10.0  # seconds in which a stack that nobody asks anything of should have stopped


class Sandbox:
    """`directory` is made, and removed with all that is in it. `with` in the main thread only.

    `command` is what it is for: its name begins the directory's, and its settings come from there.
    """

    def __init__(self, command: str = "smoke") -> None:
        self.command = command
        self.directory = Path()
        self._borrowed = ""
        self._held: list[socket.socket] = []
        self._signals = _Signals()

    @property
    def runtime_dir(self) -> str:
        """Where the stack in it has its sockets."""
        return self._borrowed or str(self.directory / "run")

    @property
    def has_borrowed(self) -> bool:
        """Whether that is outside of it."""
        return bool(self._borrowed)

    def borrow(self, runtime_dir: str) -> None:
        """From now on that is where a web server that is not ours looks for the sockets; cleared in the end."""
        self._borrowed = runtime_dir

    @property
    def state_dir(self) -> Path:
        """Where it has its files and logs."""
        return self.directory / "state"

    def interruptible(self) -> _Signals:
        """`with` it, a signal raises KeyboardInterrupt: one that has come already, at once."""
        return self._signals

    def free_address(self) -> str:
        """An address on loopback whose port nobody else is given: it is bound, though nobody listens there yet.

        Who does listen must set SO_REUSEADDR, as `supervisor.sockets` does.
        """
        held = socket.socket()
        self._held.append(held)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{held.getsockname()[1]}"

    def close(self) -> None:
        """Lets go of the free addresses."""
        for each in self._held:
            each.close()

    def left_behind(self) -> list[str]:
        """What still runs after the stack has ended, if it does not end by itself: pid and command."""
        deadline = time.monotonic() + SETTLED
        while (found := _children()) and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN)
        return [f"pid {each.pid}: {_command(each)}" for each in found]

    def __enter__(self) -> Self:
        self._signals.hold()
        try:
            runner.adopt_orphans()
            usual = tempfile.gettempdir()
            short = usual if len(os.fsencode(usual)) <= LONGEST else "/tmp"  # noqa: S108 - mkdtemp makes it ours alone
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.command}-", dir=short))
            if os.geteuid() == 0:
                self.directory.chmod(0o711)  # the app's user must find its entry file and its socket
        except BaseException:
            self._signals.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._end_processes()
        with contextlib.suppress(OSError):
            place.clear(self.runtime_dir)  # what is borrowed stands outside; Taken: it is somebody else's by now
        shutil.rmtree(self.directory, ignore_errors=True)
        self._signals.release()
        if self._signals.came and error is None:
            raise KeyboardInterrupt

    def _end_processes(self) -> None:
        """Ends our descendants: told to stop, told again (which a supervisor takes as "at once"), then killed.

        A second signal leaves the first step out.
        """
        for name, patience, polite in (("TERM", PATIENCE, True), ("TERM", PATIENCE / 2, False), ("KILL", inf, False)):
            deadline = time.monotonic() + patience
            told: set[int] = set()
            while found := _children():
                for each in found:
                    if each.pid not in told:  # those that we adopt meanwhile, too
                        told.add(each.pid)
                        runner.tell(each.pid, name)
                time.sleep(LOOK_AGAIN)
                if time.monotonic() > deadline or (polite and self._signals.came > 1):
                    break
            else:
                return


class _Signals:
    """Remembers signals; within `with`, the first one raises KeyboardInterrupt. Any after it hurries the stack."""

    def __init__(self) -> None:
        self.came = 0
        self._raises = False
        self._before: dict[signal.Signals, Any] = {}

    def hold(self) -> None:
        for each in SIGNALS:
            self._before[each] = signal.signal(each, self._take)

    def release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> None:
        self._raises = True
        if self.came:
            self._interrupt()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raises = False

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.came += 1
        if self._raises:
            self._interrupt()
        if self.came > 1:
            for each in runner.children(os.getpid()):
                runner.tell(each, "TERM")  # a supervisor that is told again ends everything at once

    def _interrupt(self) -> None:
        self._raises = False
        raise KeyboardInterrupt


def overrides(sandbox: Sandbox, loaded: Loaded) -> Iterator[Override]:
    """The settings that bring a project's stack into a sandbox. Sites that share an address share it there too.

    An nginx that somebody else runs knows nothing of the sandbox: one of our own stands for it, with the same site. But
    where its place is borrowed, the sites stay as they are, and only files and logs are put aside.
    """
    origin = f"stackctl {sandbox.command}"
    yield Override("stack.state_dir", json.dumps(str(sandbox.state_dir)), origin)
    if sandbox.has_borrowed:
        return
    yield Override("stack.runtime_dir", json.dumps(sandbox.runtime_dir), origin)
    taken = {each: sandbox.free_address() for each in _addresses(loaded.config)}
    short = any(each.startswith("site.") for each in loaded.origins)
    for name, site in loaded.config.sites.items():
        key = "site" if short else f"sites.{name}"
        yield Override(f"{key}.listen", json.dumps([taken[each] for each in site.listen]), origin)
        if site.web == EXTERNAL:
            yield Override(f"{key}.web", json.dumps(PRIVATE), origin)


def _addresses(config: Config) -> dict[str, None]:
    return dict.fromkeys(address for site in config.sites.values() for address in site.listen)


def _children() -> list[psutil.Process]:
    """Our children that live; those that have ended are reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    return psutil.Process().children()


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:100] or process.name()
    return "gone by now"
