"""The real server on a real socket, for the tests that need one."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil
import pytest

from stack.wsgi import state
from stack.wsgi.keeper import Keeper

from . import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "tests" / "apps"
WITHIN = 20.0  # seconds: a deadline for what should take milliseconds


T = TypeVar("T")


def wait_until(fact: Callable[[], T], what: str) -> T:
    """Poll until the fact is true."""
    until = time.monotonic() + WITHIN
    while not (found := fact()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {WITHIN:g} s: {what}")
        time.sleep(0.01)
    return found


class UnixHTTPConnection(HTTPConnection):
    """The standard library's client on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WITHIN)
        self.path = path

    def connect(self) -> None:
        self.sock = connect(self.path)


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(WITHIN)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def packet(variables: dict[str, str], modifier1: int = 0) -> bytes:
    """A uwsgi packet."""
    data = b"".join(
        struct.pack("<H", len(each)) + each
        for pair in variables.items()
        for each in (part.encode("latin-1") for part in pair)
    )
    return struct.pack("<BHB", modifier1, len(data), 0) + data


def request(protocol: str, path: str, body: bytes = b"", method: str = "GET", size: int | None = None) -> bytes:
    """A request as bytes, whose body is announced with its size or another."""
    size = len(body) if size is None else size
    if protocol == "http":
        length = f"Content-Length: {size}\r\n" if size else ""
        return f"{method} {path} HTTP/1.0\r\n{length}\r\n".encode() + body
    location, _, query = path.partition("?")
    variables = {"REQUEST_METHOD": method, "REQUEST_URI": path, "PATH_INFO": location, "QUERY_STRING": query}
    if protocol == "scgi":
        return wire.scgi({"CONTENT_LENGTH": str(size), **variables}, body)
    if size:
        variables["CONTENT_LENGTH"] = str(size)
    return wire.fastcgi(variables, body) if protocol == "fastcgi" else packet(variables) + body


class Server:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, errors: Path) -> None:
        self.process = process
        self.path = path
        self.errors = errors

    @property
    def log(self) -> str:
        return self.errors.read_text("utf-8", "replace")

    def workers(self) -> list[int]:
        """The pids of its children that are alive."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children()
            return [each.pid for each in children if each.status() != psutil.STATUS_ZOMBIE]
        return []

    def connect(self) -> socket.socket:
        return connect(self.path)

    def client(self) -> UnixHTTPConnection:
        return UnixHTTPConnection(self.path)

    def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes, and read to the end of the connection."""
        with self.connect() as sock:
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
            return everything(sock)

    def get(self, target: str, method: str = "GET", body: bytes | None = None) -> tuple[HTTPResponse, bytes]:
        """One request over HTTP, on a connection of its own."""
        client = self.client()
        try:
            client.request(method, target, body)
            response = client.getresponse()
            return response, response.read()
        finally:
            client.close()

    def uwsgi(self, path: str, body: bytes = b"", **variables: str) -> bytes:
        """One request over uwsgi."""
        uri, _, query = path.partition("?")
        base = {"REQUEST_METHOD": "GET", "REQUEST_URI": path, "PATH_INFO": uri, "QUERY_STRING": query}
        if body:
            base["CONTENT_LENGTH"] = str(len(body))
        return self.raw(packet({**base, **variables}) + body)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the master, and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(WITHIN)


def everything(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """The pool of two workers, in this process; its limit of descriptors is as before, afterwards."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = Keeper(2)
    yield made
    made.end_all()
    made.pool.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a unix socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="w-") as name:
        yield Path(name)


@pytest.fixture
def launch(folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers, each on a unix socket, and ends them."""
    with launching(folder) as start:
        yield start


@contextlib.contextmanager
def launching(folder: Path) -> Iterator[Callable[..., Server]]:
    """The same, for fixtures that last longer than one test."""
    servers: list[Server] = []

    def start(app: str = "wsgi_odd:app", *arguments: str, ready: bool = True, **options: object) -> Server:
        path = folder / f"{len(servers)}.sock"
        errors = folder / f"{len(servers)}.log"
        argv = [
            sys.executable,
            "-m",
            "stack.wsgi",
            app,
            "--bind",
            f"unix:{path}",
            "--pythonpath",
            str(APPS),
            *arguments,
        ]
        with errors.open("ab") as log:
            process = subprocess.Popen(argv, cwd=ROOT, stderr=log, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        server = Server(process, path, errors)
        servers.append(server)
        if ready:
            wait_until(lambda: answers(server), f"the server answers; its log: {server.log}")
        return server

    yield start
    for server in servers:
        workers = server.workers()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        for pid in workers:
            wait_until(lambda pid=pid: gone(pid), f"worker {pid} dies with its master")  # type: ignore[misc]


def all_ready(where: str) -> bool:
    """Whether a server that tells its state there has all the workers that it wants, and they have loaded the app."""
    found = state.read(where)
    wanted: int = found["wanted"]
    return len([each for each in found["workers"] if each["state"] == "ready"]) >= wanted


def answers(server: Server) -> bool:
    try:
        server.get("/")
    except (FileNotFoundError, ConnectionRefusedError):
        if server.process.poll() is not None:
            raise AssertionError(f"it exited with {server.process.returncode}: {server.log}") from None
        return False
    return True


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def unused_port() -> int:
    """A port below those that the kernel gives to clients."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


@pytest.fixture(scope="session")
def standing() -> Iterator[Callable[[], Server]]:
    """The server that stands for whoever just asks it: the one of the last test, if that has left it as it was."""
    with tempfile.TemporaryDirectory(prefix="w-") as name, launching(Path(name)) as start:
        known: list[tuple[Server, list[int]]] = []

        def found() -> Server:
            if known:
                server, workers = known[-1]
                if server.process.poll() is None and server.workers() == workers and server.path.exists():
                    return server
            server = start("wsgi_odd:app", "--workers", "1", "--threads", "4")
            known.append((server, server.workers()))
            return server

        yield found


@pytest.fixture
def server(standing: Callable[[], Server]) -> Server:
    """One worker with four threads, and nothing in its log."""
    server = standing()
    os.truncate(server.errors, 0)
    return server
