"""Load for a long time, with reloads and deaths at random, and what they must not cost.

Of each app server, all at the same time: a quarter of an hour of deaths and reloads at random (SOAK_SECONDS), then a
hundred reloads one after the other (SOAK_RELOADS). SOAK_SEED replays the order of events. What fails is told, and is
the exit code.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from tests.e2e.client import PATIENCE, Load
from tests.e2e.fault import ENGINES
from tests.e2e.kept import Kept, ended, is_whole
from tests.e2e.project import lives, until

SECONDS = float(os.environ.get("SOAK_SECONDS", "900"))
SEED = int(os.environ.setdefault("SOAK_SEED", str(random.SystemRandom().getrandbits(32))))  # the same in each process
RELOADS = int(os.environ.get("SOAK_RELOADS", "100"))
WARM_UP = 0.2  # of the time, before anything is measured
SLOW = 2.0  # seconds
PIECES = 20  # of a slow upload
ANSWERS = 500  # good ones, until memory is measured
GENERATIONS = 3  # of the app, whose least memory counts: by chance one has 12 % more than another
GROWS = 0.1  # of the memory, which is too much
LINES = 100  # of the log, where something failed
THREADS = 4  # of a worker
WITHIN = 60.0  # seconds: a deadline


class Crowd(Load):
    """Visitors of every kind: kept and fresh connections, GET and POST, slow requests, streams, slow uploads too."""

    def __init__(self, port: int) -> None:
        super().__init__(port, clients=6, slow=False)
        kinds: tuple[tuple[str, str, bytes | None, float], ...] = (
            ("GET", f"/slow?seconds={SLOW:g}", None, 0),
            ("GET", "/stream", None, 0),
            ("POST", "/echo", bytes(1 << 20), 0),
            ("POST", "/echo", bytes(range(256)) * 400, SLOW),
        )
        for kind in kinds:
            number = len(self._good)
            self._good.append(0)
            self._threads.append(threading.Thread(target=self._repeat, args=(number, *kind)))

    def _repeat(self, number: int, method: str, path: str, body: bytes | None, seconds: float) -> None:
        connection = Dribbling(self._port, seconds)
        while not self._stopped.wait(0.1):
            self._try(connection, number, method, path, body)
        connection.close()


class Dribbling(HTTPConnection):
    """Takes so many seconds to send a body of some size."""

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__("127.0.0.1", port, timeout=PATIENCE)
        self._pause = seconds / PIECES

    def send(self, data: Any) -> None:
        if len(data) < PIECES * 1000:  # the head
            super().send(data)
            return
        size = math.ceil(len(data) / PIECES)
        for start in range(0, len(data), size):
            super().send(data[start : start + size])
            time.sleep(self._pause)


@contextlib.contextmanager
def begun(engine: str) -> Iterator[tuple[Kept, list[str]]]:
    """A stack, and what is found wrong with it; if there is something, it is told, and the log too."""
    stack, wrong = Kept(engine), list[str]()
    stack.timeout = 10
    try:
        stack.begin(f"--set=server.threads={THREADS}")
        yield stack, wrong
    except Exception as error:  # noqa: BLE001 - whatever it is, the other runs go on
        wrong += traceback.format_exception(error)
    finally:
        if wrong:
            said = [each for each in stack.log().splitlines() if " stack[" in each or " app[" in each]
            tell("\n".join(f"{engine}: {each}" for each in [*wrong, *said[-LINES:]]))
        ended(stack)


def reloads(engine: str) -> list[str]:
    """Reload after reload under load; what failed."""
    with begun(engine) as (stack, wrong):
        with Crowd(stack.port) as load:
            for number in range(RELOADS):
                stack.write("version.txt", f"{number}")
                stack.reload()
                until(lambda number=number: stack.get("/").text == f"{number}", "the new code answers", WITHIN)  # type: ignore[misc]
        tell(f"{engine}: {RELOADS} reloads, {len(load.failed)} of {load.good + len(load.failed)} requests failed")
        wrong.extend(load.failed)
    return wrong


def measured(stack: Kept) -> tuple[int, int, dict[str, int]]:
    """Descriptors, processes, and bytes of memory of the supervisor and of each service, once it is quiet.

    The app's workers have all come at the same time and answered as many requests: memory of workers of unequal age
    cannot be compared.
    """

    def is_quiet() -> bool:
        services = stack.status()["services"]
        return is_whole(stack) and all(len(each["generations"]) == 1 for each in services)

    least: dict[str, int] = {}
    for _ in range(GENERATIONS):
        stack.reload()
        with Crowd(stack.port) as load:
            until(lambda load=load: load.good >= ANSWERS, "requests are answered", WITHIN)  # type: ignore[misc]
        assert not load.failed, load.failed
        until(is_quiet, "one generation of each is left", WITHIN)
        status = stack.status()
        family = stack.processes()
        supervisor = psutil.Process(status["pid"])
        assert all(map(lives, supervisor.children(recursive=True))), "a zombie"
        memory = {"supervisor": supervisor.memory_info().rss}
        for service in status["services"]:
            root = psutil.Process(service["generations"][0]["pid"])
            memory[service["name"]] = sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))
        least = {name: min(memory[name], least.get(name, memory[name])) for name in memory}
    return sum(each.num_fds() for each in family), len(family), least


def havoc(stack: Kept, events: random.Random, seconds: float) -> tuple[int, int, list[str], list[str]]:
    """Reloads, and workers that are killed or stopped, one after the other.

    Returns the deaths, the good answers, the requests that failed, and those of them that were not under way when a
    worker died: those that cannot have been in its hands.
    """
    deaths: list[tuple[float, float]] = []  # from when to when it has died
    end = time.monotonic() + seconds
    with Crowd(stack.port) as load:
        while time.monotonic() < end:
            event = events.choice(("reload", "kill", "stop"))
            victim = 0
            if event == "reload":
                stack.reload()
            else:
                victim = events.choice(sorted(stack.workers("app")))
                began = time.monotonic()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL if event == "kill" else signal.SIGSTOP)
            until(lambda victim=victim: is_whole(stack) and victim not in stack.workers("app"), event, WITHIN)  # type: ignore[misc]
            if victim:
                deaths.append((began, time.monotonic()))
            enough = load.good + events.randrange(20, 200)
            until(lambda enough=enough: load.good >= enough, "requests are answered", WITHIN)  # type: ignore[misc]
    died = zip(load.failed, load.spans, strict=True)
    lost = [text for text, (sent, broken) in died if not any(sent <= end and begin <= broken for begin, end in deaths)]
    return len(deaths), load.good, load.failed, lost


def soak(engine: str) -> list[str]:
    """The long run of one engine; what was wrong."""
    with begun(engine) as (stack, wrong):
        events = random.Random(SEED)
        havoc(stack, events, SECONDS * WARM_UP)
        fds, processes, memory = measured(stack)
        deaths, good, failed, lost = havoc(stack, events, SECONDS)
        after = measured(stack)
        grown = {name: after[2][name] / memory[name] - 1 for name in memory}
        tell(
            f"{engine}: {SECONDS:.0f} s, {deaths} deaths, {len(failed)} of {good + len(failed)} requests failed,"
            f" {len(lost)} of them while no worker died;"
            f" descriptors {fds} -> {after[0]}, processes {processes} -> {after[1]};"
            f" memory {', '.join(f'{name} {100 * more:+.1f} %' for name, more in grown.items())}"
        )
        wrong.extend(lost)
        if len(failed) > deaths * THREADS:  # what a worker had in hand that died
            wrong.extend(failed)
        if abs(after[0] - fds) > 2:
            wrong.append(f"descriptors: {fds} -> {after[0]}")
        if after[1] != processes:
            wrong.append(f"processes: {processes} -> {after[1]}")
        wrong.extend(f"memory of {name} grew by {100 * more:.0f} %" for name, more in grown.items() if more >= GROWS)
    return wrong


def tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - for whoever runs it


def main() -> int:
    tell(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:g} SOAK_RELOADS={RELOADS}")
    with ProcessPoolExecutor(len(ENGINES)) as pool:
        runs = [pool.submit(run, engine) for run in (soak, reloads) for engine in ENGINES]
    return any(run.result() for run in runs)


if __name__ == "__main__":
    sys.exit(main())
