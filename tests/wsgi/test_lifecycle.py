"""Starting, stopping, dying: the master and its workers, as real processes."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from stack.supervisor.runner import has_open

from .conftest import APPS, ROOT, WITHIN, Server, answers, everything, gone, packet, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.e2e


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITED = 54321  # a user who is nobody else


def ordinary() -> tuple[str, ...]:
    """What makes root's command another user's, who may have no more processes than the limit says.

    All that is left of root's rights is to read: Python may be in a home that is nobody else's.
    """
    if os.geteuid():
        return ()
    rights = (f"--{which}=-all,+dac_read_search" for which in ("bounding-set", "inh-caps", "ambient-caps"))
    return ("setpriv", f"--reuid={LIMITED}", f"--regid={LIMITED}", "--clear-groups", *rights)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "stack.wsgi", *arguments, "--pythonpath", str(APPS)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False)


def test_app_that_cannot_be_loaded_ends_everything_with_3(folder: Path) -> None:
    done = run("wsgi_broken:app", "--bind", f"unix:{folder}/s", "--workers", "3")
    assert done.returncode == 3
    assert done.stderr.count("No module named 'there_is_no_such_module'") == 1, "one worker tells, not each"
    assert "stack/wsgi" not in done.stderr, "the traceback is about the app"
    assert not (folder / "s").exists()


@pytest.mark.parametrize("app", ["wsgi_exits:app", "there_is_none:app", "wsgi_odd:there_is_none", "wsgi_odd:closed"])
def test_other_failures_to_load_end_with_3_too(folder: Path, app: str) -> None:
    assert run(app, "--bind", f"unix:{folder}/s").returncode == 3


@pytest.mark.parametrize(
    "arguments",
    [["wsgi_odd"], ["wsgi_odd:app", "--bind", "nonsense"], ["wsgi_odd:app", "--bind", "unix:x", "--workers", "0"]],
)
def test_usage_is_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_taken_port_is_3_with_address_and_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("wsgi_odd:app", "--bind", where)
    assert done.returncode == 3
    assert f"cannot bind {where}: Address already in use" in done.stderr


def test_socket_in_use_is_left_alone(server: Server) -> None:
    done = run("wsgi_odd:app", "--bind", f"unix:{server.path}")
    assert done.returncode == 3
    assert "something listens there already" in done.stderr
    assert server.get("/")[0].status == 200


def test_socket_is_the_owners_only(server: Server) -> None:
    assert server.path.stat().st_mode & 0o777 == 0o600


def test_sigterm_ends_with_0_and_removes_the_socket(server: Server) -> None:
    assert server.stop() == 0
    assert not server.path.exists()


def test_socket_of_a_successor_is_not_removed(server: Server) -> None:
    server.path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(server.path))
        assert server.stop() == 0
        assert server.path.exists()


def test_sigint_ends_at_once_with_130(server: Server, folder: Path) -> None:
    with server.connect() as sock:
        sock.sendall(f"GET /wait?{folder}/never HTTP/1.0\r\n\r\n".encode())
        wait_until((folder / "never.begun").exists, "the request is in hand")
        assert server.stop(signal.SIGINT) == 130


def listening(server: Server) -> int:
    """The inode of its listening socket (proc(5), /proc/net/unix)."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()]
    return next(int(row[6]) for row in rows if row[3] == "00010000" and row[7:] == [str(server.path)])


@pytest.mark.parametrize("protocol", ["http", "uwsgi"])
def test_sigterm_finishes_what_is_in_hand_and_what_is_queued(
    launch: Callable[..., Server], folder: Path, protocol: str
) -> None:
    server = launch("wsgi_odd:app", "--workers", "1", "--threads", "1")
    gate = folder / "gate"

    def request(path: str, query: str = "") -> bytes:
        if protocol == "uwsgi":
            return packet({"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query})
        return f"GET {path}?{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

    slow, *queued = [server.connect() for _ in range(20)]
    slow.sendall(request("/wait", str(gate)))
    wait_until(Path(f"{gate}.begun").exists, "the request is in hand")
    for sock in queued[:10]:
        sock.sendall(request("/"))
    (worker,), listener = server.workers(), listening(server)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not server.path.exists() and not has_open(worker, {listener}), "both have begun to drain")
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        server.connect()
    for sock in queued[10:]:
        sock.sendall(request("/"))
    gate.touch()
    answers = [everything(sock) for sock in (slow, *queued)]
    assert answers[0].endswith(b"waited")
    assert all(answer.endswith(b"\r\n\r\nhello\n") for answer in answers[1:])
    assert protocol == "uwsgi" or all(b"\r\nConnection: close\r\n" in answer for answer in answers)
    assert server.process.wait(WITHIN) == 0
    for sock in (slow, *queued):
        sock.close()


def test_idle_connection_is_left_to_its_peer_while_draining(server: Server) -> None:
    client = server.client()
    client.request("GET", "/")
    assert client.getresponse().read() == b"hello\n"
    server.process.send_signal(signal.SIGTERM)

    def is_told_to_close() -> bool:  # by its worker, which hears of the drain a moment after the master
        client.request("GET", "/")
        response = client.getresponse()
        assert response.read() == b"hello\n"
        return response.getheader("Connection") == "close"

    wait_until(is_told_to_close, "the next answer closes the connection")
    client.close()
    assert server.process.wait(WITHIN) == 0


def test_request_that_does_not_end_is_killed_after_stop_within(launch: Callable[..., Server], folder: Path) -> None:
    server = launch("wsgi_odd:app", "--workers", "1", "--stop-within", "0.2")
    with server.connect() as sock:
        sock.sendall(f"GET /wait?{folder}/never HTTP/1.0\r\n\r\n".encode())
        wait_until((folder / "never.begun").exists, "the request is in hand")
        assert server.stop() == 0
    assert "was not done in time; killed" in server.log


def test_killed_worker_is_replaced_and_said(launch: Callable[..., Server]) -> None:
    server = launch("wsgi_odd:app", "--workers", "2")
    first = wait_until(lambda: found if len(found := server.workers()) == 2 else [], "two workers")
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: len(set(server.workers()) - {first[0]}) == 2, "another worker")
    wait_until(lambda: f"worker {first[0]} killed by SIGKILL; replaced" in server.log, "it is said")
    assert server.get("/")[0].status == 200


def test_stopped_worker_is_replaced(server: Server) -> None:
    """At once, though others have just ended: it is no crash."""
    for _ in range(3):
        (crashed,) = wait_until(server.workers, "a worker")
        os.kill(crashed, signal.SIGKILL)
        (first,) = wait_until(lambda gone=crashed: [each for each in server.workers() if each != gone], "another")  # type: ignore[misc]
        assert server.get("/")[0].status == 200
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: server.workers() not in ([], [first]), "another worker")
    assert server.get("/")[0].status == 200
    assert f"worker {first} is stopped by SIGSTOP" in server.log
    assert f"worker {first} killed by SIGKILL; replaced\n" in server.log


def test_killed_master_leaves_no_worker(launch: Callable[..., Server]) -> None:
    server = launch("wsgi_odd:app", "--workers", "3")
    workers = wait_until(lambda: found if len(found := server.workers()) == 3 else [], "three workers")
    server.process.kill()
    server.process.wait()
    for pid in workers:
        wait_until(lambda pid=pid: gone(pid), f"worker {pid} is gone")  # type: ignore[misc]
    again = launch("wsgi_odd:app", "--bind", f"unix:{server.path}")
    assert server.get("/")[0].status == 200, "it starts over the stale socket"
    assert again.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
@pytest.mark.parametrize("arguments", [[], ["--preload"]])
def test_killed_master_leaves_no_worker_whose_app_has_changed_its_user(
    launch: Callable[..., Server], folder: Path, arguments: list[str]
) -> None:
    """The kernel forgets whom a process is to die with when that process becomes another user's (prctl(2))."""
    folder.chmod(0o777)
    (folder / "wsgi_nobody.py").write_text("import os\nfrom wsgi_plain import app\nos.setuid(65534)\n")
    server = launch("wsgi_nobody:app", "--workers", "2", "--pythonpath", str(folder), *arguments)
    workers = wait_until(lambda: found if len(found := server.workers()) == 2 else [], "two workers")
    wait_until(lambda: {psutil.Process(pid).uids().real for pid in workers} == {65534}, "each is another user's")
    server.process.kill()
    server.process.wait()
    for pid in workers:
        wait_until(lambda pid=pid: gone(pid), f"worker {pid} is gone")  # type: ignore[misc]


def test_worker_killed_by_term_alone_is_replaced(server: Server) -> None:
    first = server.workers()[0]
    os.kill(first, signal.SIGTERM)
    wait_until(lambda: server.workers() not in ([], [first]), "another worker")
    assert server.get("/")[0].status == 200


@pytest.mark.parametrize(
    ("route", "words"),
    [("loop", "this worker is replaced"), ("sleep", "does not notice (stuck in C code?)")],
)
def test_stuck_request_is_shown_and_its_worker_replaced(
    launch: Callable[..., Server], folder: Path, route: str, words: str
) -> None:
    server = launch(
        "wsgi_odd:app", "--workers", "1", "--threads", "2", "--timeout", "0.5", "--state", f"{folder}/state"
    )
    first = server.workers()[0]
    assert server.raw(f"GET /{route} HTTP/1.0\r\n\r\n".encode()) == b""
    wait_until(lambda: gone(first), "the worker is gone")
    assert server.get("/")[0].status == 200
    # A thread that has just answered may be kept from noting so by one that holds the interpreter.
    assert re.search(rf"GET /{route}(, GET /)?: no progress", server.log)
    assert words in server.log
    assert f"in route_{route}\n" in server.log, "its stack"


def test_stuck_request_is_shown_in_the_log_that_was_opened_again(launch: Callable[..., Server], folder: Path) -> None:
    log = folder / "log"
    server = launch("wsgi_odd:app", "--workers", "1", "--threads", "1", "--timeout", "0.5", "--log-file", str(log))
    log.rename(folder / "older")
    server.process.send_signal(signal.SIGUSR1)
    errors = Path(f"/proc/{server.workers()[0]}/fd/2")
    wait_until(lambda: errors.readlink() == log, "the worker has opened it again")
    assert server.raw(b"GET /sleep HTTP/1.0\r\n\r\n") == b""
    assert "GET /sleep: no progress" in log.read_text()
    assert "in route_sleep\n" in log.read_text()


def test_stuck_request_does_not_take_its_neighbours_along(launch: Callable[..., Server]) -> None:
    """Whatever is kept goes on, here for the short time that the worker has left, or with its successor."""
    server = launch("wsgi_odd:app", "--workers", "1", "--threads", "2", "--timeout", "0.5")
    with server.connect() as stuck, server.connect() as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.recv(1000)
        stuck.sendall(b"GET /loop HTTP/1.0\r\n\r\n")
        wait_until(lambda: "no progress" in server.log, "the stuck request is noticed")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert everything(kept).startswith(b"HTTP/1.1 200 OK\r\n")
        assert everything(stuck) == b""


def test_fast_request_does_not_wait_for_a_slow_one(server: Server, folder: Path) -> None:
    with server.connect() as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.recv(1000)
        slow = [server.connect() for _ in range(3)]
        for index, sock in enumerate(slow):
            sock.sendall(f"GET /wait?{folder}/{index} HTTP/1.0\r\n\r\n".encode())
        for index in range(3):
            wait_until((folder / f"{index}.begun").exists, "all but one thread are busy")
        idle = [server.connect() for _ in range(50)]
        dribbling = server.connect()
        dribbling.sendall(b"GET / HT")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.recv(1000).endswith(b"hello\n")
        assert server.get("/")[0].status == 200
        dribbling.sendall(b"TP/1.0\r\n\r\n")
        assert everything(dribbling).endswith(b"hello\n")
        for index, sock in enumerate(slow):
            (folder / str(index)).touch()
            assert everything(sock).endswith(b"waited")
        for sock in (*slow, *idle, dribbling):
            sock.close()


def test_descriptors_do_not_leak(server: Server) -> None:
    worker = psutil.Process(server.workers()[0])
    server.get("/")
    before = worker.num_fds()
    for _ in range(200):
        server.get("/file")
        server.uwsgi("/raise")
        server.raw(b"nonsense")
    wait_until(lambda: worker.num_fds() <= before, "as many descriptors as before")


def test_no_descriptors_left_is_survived(launch: Callable[..., Server]) -> None:
    server = launch("wsgi_odd:app", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    worker = psutil.Process(server.workers()[0])
    idle = [server.connect() for _ in range(120)]
    wait_until(lambda: worker.num_fds() == 100, "all are taken")
    for sock in idle:
        sock.close()
    assert server.get("/")[0].status == 200


def test_limit_of_descriptors_may_be_lowered_by_the_app(launch: Callable[..., Server]) -> None:
    """Below the numbers that are kept free for connections of the pool."""
    server = launch("wsgi_odd:app")
    worker = psutil.Process(server.workers()[0])
    with server.connect() as before:
        before.sendall(GET)
        assert before.recv(4096).startswith(b"HTTP/1.1 200")
        worker.rlimit(psutil.RLIMIT_NOFILE, (100, 100))
        for _ in range(3):
            assert server.get("/")[0].status == 200
        before.sendall(GET)
        assert before.recv(4096).startswith(b"HTTP/1.1 200")
    assert server.get("/")[0].status == 200


def test_standard_descriptors_may_be_closed(folder: Path) -> None:
    command = f'exec "$0" -m stack.wsgi wsgi_odd:app --bind unix:{folder}/s --pythonpath {APPS} <&- >&- 2>&-'
    process = subprocess.Popen(["/bin/sh", "-c", command, sys.executable], cwd=ROOT)
    try:
        server = Server(process, folder / "s", folder / "none")
        wait_until(lambda: answers(server), "it answers")
        assert server.get("/raise")[0].status == 500
        assert server.get("/")[1] == b"hello\n"
        assert server.stop() == 0
    finally:
        process.kill()
        process.wait()


def test_term_while_loading_is_not_lost(folder: Path) -> None:
    (folder / "wsgi_slow.py").write_text(
        f"import time, pathlib\npathlib.Path({str(folder / 'importing')!r}).touch()\n"
        "while True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass\n"
    )
    argv = [
        sys.executable,
        "-m",
        "stack.wsgi",
        "wsgi_slow:app",
        "--bind",
        f"unix:{folder}/s",
        "--pythonpath",
        str(folder),
    ]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_until((folder / "importing").exists, "the app is being imported")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN) == 0
    finally:
        process.kill()
        process.wait()


def test_more_threads_than_there_may_be_end_with_3_and_the_next_step(folder: Path) -> None:
    argv = [sys.executable, "-m", "stack.wsgi", "wsgi_odd:app", "--bind", f"unix:{folder}/s", "--threads", "2000"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh", *argv, "--pythonpath", str(APPS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode == 3
    assert " of 2000: can't start new thread; fewer --workers or --threads" in done.stderr
    assert not (folder / "s").exists()


def test_more_workers_than_there_may_be_end_with_3_and_the_next_step(folder: Path) -> None:
    argv = [sys.executable, "-m", "stack.wsgi", "wsgi_odd:app", "--bind", f"unix:{folder}/s"]
    limited = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))"
    limited += "; os.execv(sys.argv[1], sys.argv[1:])"
    if os.geteuid() == 0:
        os.chown(folder, LIMITED, LIMITED)
    done = subprocess.run(  # not by a shell: dash has no `ulimit -u`
        [*ordinary(), sys.executable, "-c", limited, *argv, "--pythonpath", str(APPS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode == 3
    assert "worker 1 of 2: Resource temporarily unavailable; fewer --workers" in done.stderr
    assert not (folder / "s").exists()


def test_backlog_that_the_kernel_cuts_is_said(launch: Callable[..., Server]) -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert (
        f"--backlog {most + 1}: the kernel allows {most} (net.core.somaxconn)"
        in launch("wsgi_odd:app", "--backlog", str(most + 1)).log
    )
    assert "somaxconn" not in launch("wsgi_odd:app", "--backlog", str(most)).log
