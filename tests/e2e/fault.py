"""Faults that are injected: the rows of docs/faults.md, and what was seen of each, noted for `make faults`."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

RECORD = "E2E_FAULTS"  # the variable that names the file to append to; set, the peers are tried too
THOROUGH = RECORD in os.environ
ENGINES = ("bundled", "uwsgi", "gunicorn")
PEERS = ("nginx + uWSGI", "nginx + gunicorn")


@dataclass(frozen=True)
class Fault:
    """A row: what goes wrong, how a test brings it about, what must hold nevertheless."""

    name: str
    cause: str
    holds: str


@dataclass(frozen=True)
class Seen:
    """What came of one fault in one column."""

    fault: str
    column: str
    held: bool
    what: str


FAULTS = (
    Fault("supervisor killed", "`kill -9` of it", "no process outlives it; the next `up` clears away what it left"),
    Fault("app server killed", "`kill -9` of its master", "another one serves, and none of its workers is left"),
    Fault(
        "worker killed",
        "`kill -9` while visitors ask",
        "another one takes its place; at most what it had in hand fails; the log names the signal",
    ),
    Fault("nginx killed", "`kill -9` of its master", "another one serves on the same port; `status` tells"),
    Fault("nginx worker killed", "`kill -9` of one", "another one takes its place; the log tells"),
    Fault(
        "crash loop at the start",
        "`os._exit(3)` while the app is imported",
        "the start fails soon, with the exit code, and nothing runs on",
    ),
    Fault(
        "crash loop later",
        "the same, once it has served",
        "pauses that grow: few spawns, next to no CPU; it serves again when the cause is gone",
    ),
    Fault(
        "crash loop of what was ready",
        "`os._exit(3)` 10 ms after the app was imported, once it has served",
        "the same: few spawns, and it serves again when the cause is gone",
    ),
    Fault(
        "broken code at a reload",
        "a syntax error, a missing module, an exception in turn, under load",
        "refused with the traceback; the old code serves on, no request fails",
    ),
    Fault(
        "broken configuration at a reload",
        "a line that nginx does not know",
        "refused before anything is touched; what runs goes on as it was",
    ),
    Fault("reload under load", "10 reloads, visitors who keep their connections, POSTs, slow requests", "none fails"),
    Fault("more and fewer workers", "2, then 8, then 1, under load", "no request fails"),
    Fault(
        "stuck in Python",
        "an endless loop, over the time limit",
        "the visitor gets 502 or 504; request and stack are in the log; the worker is replaced",
    ),
    Fault(
        "stuck in C",
        "`sleep()` in C that holds the interpreter",
        "its worker is killed soon after the time limit; others are answered again",
    ),
    Fault("worker stopped", "SIGSTOP to one", "noticed and replaced"),
    Fault("supervisor stopped", "SIGSTOP to it", "`health` says so; after SIGCONT all goes on"),
    Fault("ended while it starts", "SIGTERM at moments between 0 and 1 s", "gone at once, nothing left behind"),
    Fault("two starts at once", "20 times `up` at the same moment", "one wins, the others name it"),
    Fault("port taken", "a listener of somebody's", "address, pid and command are told, and a free port; it lives on"),
    Fault("nginx missing", "no nginx anywhere", "exit code 5, and how to get it; nothing half started"),
    Fault("disk full", "no room for a byte more in the log directory", "every request is answered; logging recovers"),
    Fault(
        "no descriptors",
        "`prlimit --nofile` on its workers, and silent connections",
        "no CPU is burnt; it serves again as soon as they go",
    ),
    Fault("leaks", "thousands of requests, deaths of workers", "descriptors, processes and memory stay as they were"),
    Fault(
        "out of memory",
        "`prlimit --as`, and a request that takes all",
        "the log names memory; other requests are answered soon after",
    ),
    Fault("queue full", "500 visitors at once, an app that takes its time", "502 or 503 at once; normal soon after"),
    Fault("slow visitors", "200 who dribble heads and bodies", "everybody else is served as ever"),
    Fault("visitor gone", "closes in the middle of an answer", "the app's `close()` is called"),
    Fault("clock jumps", "an hour forth, a day back", "no worker is killed, no request times out"),
    Fault("started without stdin, stdout, stderr", "`<&- >&- 2>&-`", "it serves"),
    Fault(
        "app raises what ends a process",
        "SystemExit, KeyboardInterrupt, MemoryError, endless recursion",
        "each is one 500; the same process serves on",
    ),
    Fault("socket removed", "`rm` of it while it serves", "`health` names it, a reload puts it right"),
    Fault(
        "planted links",
        "links and pid files of others where logs and sockets go",
        "refused; nobody else's file is written, nobody else's process signalled",
    ),
)
NAMES = frozenset(each.name for each in FAULTS)


def fault(name: str) -> Callable[[Callable[..., str]], Callable[..., None]]:
    """A test that injects it, and returns what it has seen.

    The column is that of its project, else the one of its `engine`. A peer that does not hold is a finding, not a
    failure.
    """
    assert name in NAMES, name

    def decorate(test: Callable[..., str]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*arguments: Any, **named: Any) -> None:
            stack = next((each for each in named.values() if hasattr(each, "column")), None)
            column = named.get("engine", ENGINES[0]) if stack is None else stack.column
            try:
                seen = Seen(name, column, True, test(*arguments, **named))
            except (AssertionError, OSError, HTTPException, psutil.Error) as error:
                if stack is None or column not in PEERS:
                    raise
                seen = Seen(name, column, False, (str(error) or type(error).__name__).splitlines()[0])
                stack.spoilt = True
            note(seen)

        marked: Callable[..., None] = pytest.mark.fault(run)
        return marked

    return decorate


def note(seen: Seen) -> None:
    """For the table, if it is being made."""
    if file := os.environ.get(RECORD):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(seen)) + "\n")


class Watch:
    """Seconds since it was made, in words. They are told, never asserted: a busy machine is no fault."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"
