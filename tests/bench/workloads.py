"""The workloads: which app, which requests, under which servers; and the loads that are not as much as can be."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stack.config import Override
from stack.facts import Interpreter
from stack.operations import visitors
from stack.operations.bench import Drive, Report, Wanted, measure, wrk
from stack.operations.bench.contenders import Contender, chosen
from stack.operations.visitors import Request

__all__ = ["CLOSE", "WORKLOADS", "in_process", "profile"]

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "tests" / "apps" / "bench"
EXAMPLE = ROOT / "deploy" / "example"
PEERS = ("uwsgi", "granian", "gunicorn-gthread", "waitress")
THREADS = 4
SLEEP = 0.05  # seconds that /slow of the hello app sleeps
SLEEPERS = 0.05  # of all requests in the mixed load
BUSY = 0.7  # of what uWSGI can take of it
SLOW_CONNECTIONS = 32
UPLOAD = "x" * 10 * 1024
CLOSE = "hello-close"
CALLS = """
import io, statistics, sys, time
from app import app

FIXED = {
    "REQUEST_METHOD": "GET", "REQUEST_URI": "/", "PATH_INFO": "/", "QUERY_STRING": "", "CONTENT_TYPE": "",
    "CONTENT_LENGTH": "", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000",
    "SCRIPT_NAME": "", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "1024", "REQUEST_SCHEME": "http",
    "HTTP_HOST": "127.0.0.1:8000", "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr,
    "wsgi.multithread": True, "wsgi.multiprocess": True, "wsgi.run_once": False,
}

def start_response(status, headers, exc_info=None):
    pass

def each():
    began = time.process_time()
    for _ in range(2000):
        answer = app({**FIXED, "wsgi.input": io.BytesIO()}, start_response)
        b"".join(answer)
        answer.close()
    return (time.process_time() - began) / 2000

each()
print(statistics.median(each() for _ in range(7)))
"""


@dataclasses.dataclass(frozen=True)
class Workload:
    """An app under some servers. `connections` at a time, in so many `workers`; `seconds` if not as told.

    `often`: for so many times as many rounds as told.
    """

    says: str
    app: Path
    servers: Callable[[], Sequence[Contender]]
    asks: Sequence[Request] = (Request("GET", "/", "", "", 0),)
    connections: int = 16
    workers: int = 2
    seconds: int = 0
    often: int = 1
    is_mixed: bool = False

    def run(
        self, seconds: int, rounds: int, talk: Callable[[str], None], between: Callable[[], None] = lambda: None
    ) -> Report:
        """Measures it. `between` is called before each round."""
        seconds, rounds = self.seconds or seconds, rounds * self.often
        drive: Drive = _mixed(self._rate(seconds, talk)) if self.is_mixed else wrk.run
        wanted = Wanted(self.asks, self.connections, seconds, rounds, bare=True, drive=drive, between=between)
        return self.measured(self.servers(), wanted, talk)

    def _rate(self, seconds: int, talk: Callable[[str], None]) -> float:
        """Requests per second of the mixed load: of what uWSGI takes if it gets no rest, a part."""
        most = Wanted([_get("/mixed")], self.connections, seconds, 1, bare=True)
        return BUSY * self.measured(servers("uwsgi"), most, talk).series[0].figures["per_second"].median

    def measured(self, contenders: Sequence[Contender], wanted: Wanted, talk: Callable[[str], None]) -> Report:
        """These, as wanted."""
        flags = [
            Override("server.workers", str(self.workers), "make bench"),
            Override("server.threads", str(THREADS), "make bench"),
            Override("app.python", json.dumps(sys.executable), "make bench"),
        ]
        report = measure(self.app, flags, contenders, wanted, lambda _: None, talk)
        return dataclasses.replace(report, name=self.says)


def servers(*names: str) -> Sequence[Contender]:
    """Those of these names, as they are installed here."""
    here = Interpreter(sys.executable, tuple(sys.version_info[:3]), "make bench")
    return chosen(names, "", THREADS, here, os.environ)


def varied(name: str, *arguments: str, protocol: str = "") -> Contender:
    """The bundled server under another name, told something more."""
    (ours,) = servers("bundled")
    return dataclasses.replace(ours, name=name, arguments=arguments, protocol=protocol or ours.protocol)


def _get(path: str) -> Request:
    return Request("GET", path, "", "", 0)


def _mixed(rate: float) -> Drive:
    """So many requests per second, of which some sleep; what is counted is those that do not.

    Two wrks at once, so that neither waits for an answer to the other's. Each connection waits a random while before
    each of its requests: nearly as if all came from many visitors who know nothing of each other, but who wait for an
    answer before they ask again.
    """

    def drive(program: str, asked: Request, connections: int, seconds: int, directory: Path) -> wrk.Counted:
        slow = dataclasses.replace(asked, path="/slow")
        rests = SLOW_CONNECTIONS / (rate * SLEEPERS) - SLEEP
        with ThreadPoolExecutor(1) as beside:
            sleepers = beside.submit(wrk.run, program, slow, SLOW_CONNECTIONS, seconds, directory, rests)
            found = wrk.run(program, asked, connections, seconds, directory, connections / (rate * (1 - SLEEPERS)))
            return dataclasses.replace(found, failures=found.failures | sleepers.result().failures)

    return drive


def in_process() -> float:
    """Seconds of CPU that a call of the Flask app takes, as a server would make it, without any server."""
    argv = [sys.executable, "-c", CALLS]
    done = subprocess.run(argv, cwd=APPS / "hello", capture_output=True, text=True, check=True)
    return float(done.stdout)


def profile(seconds: int, talk: Callable[[str], None]) -> dict[str, Any]:
    """Where the bundled server's threads spend their CPU time on the raw app, as that app tells."""
    told: list[dict[str, Any]] = []

    def drive(program: str, asked: Request, connections: int, seconds: int, directory: Path) -> wrk.Counted:
        found = wrk.run(program, asked, connections, seconds, directory)
        told.append(json.loads(visitors.ask(dataclasses.replace(asked, path="/profile")).body))
        return found

    workload = Workload("profile", APPS / "profiled", lambda: servers("bundled"), workers=1)
    workload.measured(workload.servers(), Wanted([_get("/")], 16, seconds, 1, bare=True, drive=drive), talk)
    return told[-1]


def _of_close() -> Iterator[Contender]:
    yield from servers("bundled")
    yield varied("bundled-logging", "--access-log", "{socket}.log")
    yield from servers("uwsgi")
    yield varied("bundled-uwsgi", protocol="uwsgi")


def _of_memory() -> Iterator[Contender]:
    yield from servers("bundled", "uwsgi", "gunicorn-gthread")
    yield varied("bundled-preload", "--preload")


WORKLOADS = {
    "raw": Workload("raw WSGI callable", APPS / "raw", lambda: servers("bundled", "uwsgi")),
    "raw-64": Workload("raw WSGI callable", APPS / "raw", lambda: servers("bundled", "uwsgi"), connections=64),
    "hello": Workload("Flask hello", APPS / "hello", lambda: servers("bundled", *PEERS)),
    CLOSE: Workload("Flask hello, what lies close together", APPS / "hello", lambda: tuple(_of_close()), often=4),
    "hello-64": Workload("Flask hello", APPS / "hello", lambda: servers("bundled", *PEERS), connections=64),
    "mixed": Workload(
        "mixed load", APPS / "hello", lambda: servers("bundled", *PEERS), connections=64, seconds=4, is_mixed=True
    ),
    "bodies": Workload(
        "bodies",
        APPS / "hello",
        lambda: servers("bundled", "uwsgi"),
        (_get("/download"), Request("POST", "/upload", "", "", 0, UPLOAD, "text/plain"), _get("/stream")),
    ),
    "memory": Workload("example project", EXAMPLE, lambda: tuple(_of_memory()), connections=64, workers=8, seconds=1),
}
