"""Workers that are replaced while the server serves on: by SIGHUP, after so many requests, above so much memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from stack.wsgi import state

from .conftest import ROOT, WITHIN, Server, all_ready, everything, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.e2e

APP = """
import os
held = []
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/grow":
        held.append(b"x" * 50_000_000)
    return [f"{TEXT!r} {{os.getpid()}}".encode()]
"""


def write(folder: Path, text: str) -> None:
    """The app's code; its size differs for each text, so that nobody takes what was compiled before for it."""
    (folder / "wsgi_changing.py").write_text(APP.replace("{TEXT!r}", text).replace("{{", "{").replace("}}", "}"))


@pytest.fixture
def changing(launch: Callable[..., Server], folder: Path) -> Callable[..., Server]:
    """Starts the app whose code changes, and waits until all its workers have loaded it."""
    write(folder, "old")

    def start(*arguments: str, ready: bool = True, **options: object) -> Server:
        where = f"{folder}/changing"
        argv = ("wsgi_changing:app", "--pythonpath", str(folder), "--state", where, *arguments)
        server = launch(*argv, ready=ready, **options)
        wait_until(lambda: not ready or all_ready(where), "all its workers are ready")
        return server

    return start


class Asking:
    """Visitors that ask all the time, each on fresh connections, until told to stop; any failure is kept."""

    def __init__(self, server: Server) -> None:
        self.answers: set[bytes] = set()
        self.failures: list[object] = []
        self._server = server
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                response, body = self._server.get("/", "POST", b"body")
            except OSError as error:
                self.failures.append(error)
            else:
                self.answers.add(body)
                if response.status != 200:
                    self.failures.append(response.status)

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()


def test_sighup_brings_new_code_and_loses_no_request(changing: Callable[..., Server], folder: Path) -> None:
    server = changing("--workers", "2")
    before = set(server.workers())
    with Asking(server) as asking:
        write(folder, "newer")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "all workers have the new code" in server.log, "it is said")
        wait_until(lambda: len(server.workers()) == 2, "the old ones have left")
    assert not asking.failures
    assert not before & set(server.workers())
    assert server.get("/")[1].startswith(b"newer ")
    assert asking.answers, "somebody has asked"


def test_code_that_does_not_load_leaves_the_old_workers_alone(changing: Callable[..., Server], folder: Path) -> None:
    server = changing("--workers", "2")
    before = server.workers()
    (folder / "wsgi_changing.py").write_text("import there_is_no_such_module\n")
    with Asking(server) as asking:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP: given up" in server.log, "it is said")
    assert not asking.failures
    assert server.workers() == before
    assert server.log.count("No module named 'there_is_no_such_module'") == 1
    write(folder, "repaired")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "all workers have the new code" in server.log, "the next one works")
    assert server.get("/")[1].startswith(b"repaired ")


def test_new_code_is_not_said_to_serve_before_the_old_accepts_no_more(
    changing: Callable[..., Server], folder: Path
) -> None:
    server = changing("--workers", "1")
    (old,) = server.workers()
    os.kill(old, signal.SIGSTOP)
    write(folder, "newer")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "all workers have the new code" in server.log, "it is said")
    assert server.log.index(f"worker {old} killed by SIGKILL") < server.log.index("all workers have the new code")
    assert server.get("/")[1].startswith(b"newer ")


def test_request_in_hand_is_finished_by_the_worker_that_leaves(launch: Callable[..., Server], folder: Path) -> None:
    server = launch("wsgi_odd:app", "--workers", "1", "--threads", "2")
    with server.connect() as sock:
        sock.sendall(f"GET /wait?{folder}/gate HTTP/1.0\r\n\r\n".encode())
        wait_until((folder / "gate.begun").exists, "the request is in hand")
        (old,) = server.workers()
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "all workers have the new code" in server.log, "the successor serves")
        assert server.get("/pid")[1] != str(old).encode(), "it has taken over"
        (folder / "gate").touch()
        assert everything(sock).endswith(b"waited")
    wait_until(lambda: f"worker {old} has left (SIGHUP)" in server.log, "it has left")


def test_worker_that_had_its_requests_is_replaced(changing: Callable[..., Server]) -> None:
    server = changing("--workers", "1", "--max-requests", "20", "--max-requests-jitter", "5")
    (first,) = server.workers()
    with Asking(server) as asking:
        wait_until(lambda: f"worker {first} has left" in server.log, "it has left")
        wait_until(lambda: len(asking.answers) > 1, "its successor has answered")
    assert not asking.failures
    assert server.log.index("requests: to be replaced") < server.log.index("has left")


def test_worker_with_too_much_memory_is_replaced(changing: Callable[..., Server]) -> None:
    server = changing("--workers", "1", "--max-memory", "80m")
    (first,) = server.workers()
    server.get("/grow")
    server.get("/grow")
    wait_until(lambda: f"worker {first} has left" in server.log, "it has left")
    assert server.get("/")[0].status == 200


def test_app_that_is_larger_than_its_limit_is_not_replaced_for_ever(changing: Callable[..., Server]) -> None:
    server = changing("--workers", "1", "--max-memory", "1m", "--max-requests", "1")
    (first,) = server.workers()
    assert f"worker {first} has " in server.log
    assert "before its first request, over --max-memory: it is left alone" in server.log
    wait_until(lambda: f"worker {first} has left (1 requests)" in server.log, "only for its requests")
    assert " MB: to be replaced" not in server.log


def test_manager_is_told(changing: Callable[..., Server], folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(WITHIN)
        environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "LISTEN_PID": "1"}
        server = changing("--workers", "2", env=environ)
        ready = manager.recv(1000).decode().splitlines()
        assert ready[:2] == ["READY=1", f"MAINPID={server.process.pid}"]
        server.process.send_signal(signal.SIGHUP)
        first, second = manager.recv(1000).decode().splitlines()
        assert first == "RELOADING=1"
        assert second.startswith("MONOTONIC_USEC=")
        assert manager.recv(1000).startswith(b"READY=1\n")
        assert server.stop() == 0
        assert manager.recv(1000) == b"STOPPING=1"


def test_state_is_told_to_whoever_asks(launch: Callable[..., Server], folder: Path) -> None:
    where = str(folder / "state")
    server = launch("wsgi_odd:app", "--workers", "1", "--threads", "3", "--state", where)
    server.get("/raise")
    server.uwsgi("/echo", b"12345", REQUEST_METHOD="POST", REQUEST_START="1.5")
    with server.connect() as sock:
        sock.sendall(f"GET /wait?{folder}/gate HTTP/1.0\r\n\r\n".encode())
        wait_until((folder / "gate.begun").exists, "the request is in hand")
        found = wait_until(
            lambda: told if (told := state.read(where))["workers"][0]["requests"] == 3 else {},
            "both are told, and launch()'s own",
        )
        (folder / "gate").touch()
        everything(sock)
    (worker,) = found["workers"]
    assert (found["pid"], worker["pid"]) == (server.process.pid, server.workers()[0])
    assert (found["wanted"], found["threads"], worker["state"], worker["code"]) == (1, 3, "ready", 1)
    assert (worker["busy"], worker["errors"]) == (1, 1)
    assert worker["bytes"] >= 5 + 22
    assert [each["request"] for each in worker["current"]] == ["GET /wait"], "without its query"
    assert worker["rss"] > 1_000_000
    wait_until(lambda: state.read(where)["workers"][0]["last"]["request"] == "GET /wait", "the last one is told")
    command = [sys.executable, "-m", "stack.wsgi.status", where]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == 2
    assert str(worker["pid"]) in printed[1]
    assert printed[1].endswith("last GET /wait")
    assert Path(where).stat().st_mode & 0o777 == 0o600
    assert server.stop() == 0
    assert not Path(where).exists()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert f"nobody tells a state at {where}" in done.stderr


def test_time_in_the_queue_is_told_as_the_web_server_measured_it(launch: Callable[..., Server], folder: Path) -> None:
    import time

    where = str(folder / "state")
    server = launch("wsgi_odd:app", "--workers", "1", "--state", where)
    assert state.read(where)["workers"][0]["queue_seconds"] is None
    for moment in (f"{time.time() - 100:.3f}", f"t={time.time() - 100:.3f}", "nonsense", "t=1", "nan"):
        server.uwsgi("/", REQUEST_START=moment)
    server.uwsgi("/")
    wait_until(lambda: state.read(where)["workers"][0]["requests"] >= 6, "all are told")
    assert 99 < state.read(where)["workers"][0]["queue_seconds"] < 99 + WITHIN


def test_preloaded_app_is_loaded_once_and_shared(changing: Callable[..., Server], folder: Path) -> None:
    source = folder / "wsgi_changing.py"
    source.write_text(f"open({str(folder / 'loads')!r}, 'a').write('x')\n" + source.read_text())
    server = changing("--workers", "3", "--preload")
    wait_until(lambda: len(server.workers()) == 3, "three workers")
    assert (folder / "loads").read_text() == "x"
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "SIGHUP: refused, for with --preload" in server.log, "it is said")
    assert server.get("/")[0].status == 200


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,), name='pool-7', daemon=True).start()",
         "thread pool-7"),
        ("import socket; s = socket.create_connection({peer!r})", "socket to 127.0.0.1:{port}"),
        ("import sqlite3; d = sqlite3.connect({database!r}); d.execute('create table a(b)')", "file {database}"),
        ("import select; e = select.epoll()", "of an event loop"),
    ],
)  # fmt: skip
def test_preload_refuses_what_does_not_survive_a_fork(
    changing: Callable[..., Server], folder: Path, code: str, named: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as peer:
        words = {"peer": peer.getsockname(), "port": peer.getsockname()[1], "database": str(folder / "db")}
        source = folder / "wsgi_changing.py"
        source.write_text(code.format(**words) + "\n" + source.read_text())
        server = changing("--preload", ready=False)
        assert server.process.wait(WITHIN) == 3
        assert named.format(**words) in server.log
        assert not server.path.exists()
        (folder / "db").unlink(missing_ok=True)
        anyway = changing("--preload-anyway")
        assert named.format(**words) in anyway.log
        assert anyway.stop() == 0


def test_preload_minds_neither_logs_nor_files_that_are_read(changing: Callable[..., Server], folder: Path) -> None:
    source = folder / "wsgi_changing.py"
    code = (
        f"log = open({str(folder / 'log')!r}, 'a'); me = open(__file__); import select; noise = open('/dev/urandom')\n"
    )
    source.write_text(code + source.read_text())
    assert changing("--preload").stop() == 0


def test_preloaded_app_that_does_not_load_is_3(changing: Callable[..., Server], folder: Path) -> None:
    (folder / "wsgi_changing.py").write_text("import there_is_no_such_module\n")
    server = changing("--preload", ready=False)
    assert server.process.wait(WITHIN) == 3
    assert "No module named 'there_is_no_such_module'" in server.log
    assert not server.path.exists()


def test_signals_that_a_preloaded_app_takes_are_the_servers_again(
    changing: Callable[..., Server], folder: Path
) -> None:
    source = folder / "wsgi_changing.py"
    source.write_text("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + source.read_text())
    assert changing("--preload").stop() == 0
