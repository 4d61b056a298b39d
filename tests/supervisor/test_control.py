"""The control socket, the public sockets, and what a process says: real sockets and pipes in one process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stack.desired import Service
from stack.supervisor import control, sockets
from stack.supervisor.log import LONGEST, Log
from stack.supervisor.process import TAIL, Process
from stack.supervisor.runner import Spawned

ROOT = os.geteuid() == 0
WITHIN = 30.0  # seconds: a deadline for what should take milliseconds


@pytest.fixture
def where() -> Iterator[Path]:
    directory = tempfile.mkdtemp(prefix="control-", dir="/tmp")
    yield Path(directory)
    shutil.rmtree(directory)


async def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "heard": request}


async def asked(where: Path, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a server that is up for these requests."""
    server = await control.serve(str(where), echo)
    try:
        return [await asyncio.to_thread(control.call, str(where), each, WITHIN) for each in requests]
    finally:
        server.close()


def test_a_question_is_answered(where: Path) -> None:
    large = {"do": "apply", "plan": "é" * 1_000_000}
    answers = asyncio.run(asked(where, {"do": "status"}, large))
    assert answers == [{"ok": True, "heard": {"do": "status"}}, {"ok": True, "heard": large}]


def test_only_the_owner_may_connect(where: Path) -> None:
    async def mode() -> int:
        server = await control.serve(str(where), echo)
        try:
            return stat.S_IMODE(control.path(str(where)).stat().st_mode)
        finally:
            server.close()

    before = os.umask(0o022)
    try:
        assert asyncio.run(mode()) == 0o600
    finally:
        assert os.umask(before) == 0o022


def test_what_a_killed_run_left_is_replaced(where: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(control.path(str(where))))
    assert asyncio.run(asked(where, {"do": "status"}))[0]["ok"]


def test_nobody_is_there(where: Path) -> None:
    with pytest.raises(control.Nobody):
        control.call(str(where), {"do": "status"}, WITHIN)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(control.path(str(where))))
    with pytest.raises(control.Nobody, match="refused"):
        control.call(str(where), {"do": "status"}, WITHIN)


@pytest.mark.parametrize("said", [b"", b'{"ok": tr'])
def test_one_who_ends_before_answering_is_nobody(where: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control.path(str(where))))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(control.Nobody, match="ended before it answered"):
            control.call(str(where), {"do": "status"}, WITHIN)
        thread.join(WITHIN)


def test_one_who_says_nothing_is_not_waited_for_longer_than_told(where: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control.path(str(where))))
        listener.listen()
        with pytest.raises(control.Nobody, match="timed out"):
            control.call(str(where), {"do": "status"}, 0.05)


STRANGER = """
import os, socket, sys
os.setuid(12345)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
connection, _ = listener.accept()
connection.sendall(b'{"ok": true}' + bytes([10]))
sys.stdin.read()
"""


@pytest.mark.skipif(not ROOT, reason="only root can be a stranger to itself: run the tests as root too")
def test_a_stranger_is_not_believed(where: Path) -> None:
    where.chmod(0o777)
    with subprocess.Popen(
        ["/usr/bin/env", "-i", sys.executable, "-c", STRANGER, str(control.path(str(where)))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"listens\n"
        with pytest.raises(control.Nobody, match=r"another user .uid 12345. listens"):
            control.call(str(where), {"do": "status"}, WITHIN)
        stranger.kill()


# Public sockets.


def test_a_listening_socket_is_taken_once_and_does_not_block() -> None:
    with sockets.listen("127.0.0.1:0", 7) as listener:
        host, port = listener.getsockname()
        assert not listener.getblocking()
        assert not listener.get_inheritable()
        with pytest.raises(BlockingIOError):
            listener.accept()
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number says which
            sockets.listen(f"{host}:{port}", 7)
        assert caught.value.errno == errno.EADDRINUSE
        with socket.create_connection((host, port), WITHIN):
            pass
    sockets.listen(f"{host}:{port}", 7).close()


def test_an_ipv6_socket_leaves_ipv4_alone() -> None:
    try:
        listener = sockets.listen("[::]:0", 7)
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")
    with listener, sockets.listen(f"0.0.0.0:{listener.getsockname()[1]}", 7):
        assert listener.family == socket.AF_INET6


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError, match="assign"):
        sockets.listen("192.0.2.1:8000", 1)


# What a process says.


def heard(path: Path, *pieces: bytes) -> Process:
    """A process that has written these pieces and ended."""

    async def read() -> Process:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        service = Service("app", 0, ("x",), "/")
        process = Process(service, 1, 1, Spawned(42, reading), Log(path, echo=False))
        process.listen()
        for piece in pieces:
            await asyncio.to_thread(os.write, writing, piece)
            process.read()
        os.close(writing)
        process.read()
        process.close()
        with contextlib.suppress(OSError):
            os.fstat(reading)
            raise AssertionError("the pipe is still open")
        return process

    return asyncio.run(read())


def test_what_it_says_is_lines_however_it_comes(tmp_path: Path) -> None:
    process = heard(tmp_path / "log", b"one\ntw", b"o\n\nthr", b"ee")
    assert list(process.tail) == ["one", "two", "", "three"]
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["app[42] one", "app[42] two", "app[42] ", "app[42] three"]


def test_a_line_without_end_is_broken(tmp_path: Path) -> None:
    process = heard(tmp_path / "log", b"x" * (LONGEST - 1), b"xx", b"yy\n")
    assert [len(each) for each in process.tail] == [LONGEST + 1, 2]


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    assert list(heard(tmp_path / "log", b"caf\xe9\n").tail) == ["caf\ufffd"]


def test_the_last_lines_are_kept(tmp_path: Path) -> None:
    process = heard(tmp_path / "log", b"".join(b"%d\n" % number for number in range(TAIL + 5)))
    assert (len(process.tail), process.tail[0], process.pid) == (TAIL, "5", 42)
