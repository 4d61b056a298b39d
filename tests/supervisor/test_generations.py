"""Generations of real processes, without a web server or an app."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
from pathlib import Path

import pytest

from stack.desired import Probe, Service
from stack.supervisor import generations
from stack.supervisor.generations import Generations
from stack.supervisor.log import Log

FORGETS_THE_FIRST_SIGNAL = """
import os, signal, sys, time
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1) or (len(came) > 1 and sys.exit(0)))
open(sys.argv[1], "w").write(str(os.getpid()))
while True:
    time.sleep(60)
"""


async def started_and_stopped(service: Service, log: Log) -> None:
    """The life of one service, until nothing of it is left."""
    kept = Generations([service], {}, log)
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, kept.reap)
    keeping = asyncio.create_task(kept.keep())
    await kept.until(lambda: kept.all_proven)
    kept.stop()
    await keeping


def test_process_that_forgets_a_signal_is_asked_again(tmp_path: Path) -> None:
    pid_file = str(tmp_path / "pid")
    argv = (sys.executable, "-c", FORGETS_THE_FIRST_SIGNAL, pid_file)
    service = Service("forgetful", 0, argv, str(tmp_path), pid_file=pid_file, stop_within=60.0)
    log = Log(tmp_path / "log", echo=False)

    asyncio.run(started_and_stopped(service, log))
    assert "kills" not in log.path.read_text()


ENDS_AT_ONCE = """
import socket, sys, threading

def serve(connection):
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    connection.close()

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=[connection], daemon=True).start()
"""


def abrupt(folder: Path, stop_within: float) -> Service:
    """A service that SIGTERM ends at once, whatever it has in hand."""
    link = str(folder / "app.sock")
    return Service(
        "abrupt",
        0,
        (sys.executable, "-c", ENDS_AT_ONCE, "{socket}"),
        str(folder),
        link=link,
        probe=Probe("app", "it", "http", f"unix:{link}", "localhost", "/", ""),
        stop_when_idle=True,
        stop_within=stop_within,
    )


def stopped_beside_a_visitor(folder: Path, stop_within: float, *, leaves: bool) -> tuple[bytes, str]:
    """What a visitor gets who has connected before the stop and asks after it, and the log."""
    service, log = abrupt(folder, stop_within), Log(folder / "log", echo=False)
    found = folder / "abrupt.g1.sock"

    async def story() -> bytes:
        kept = Generations([service], {}, log)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, kept.reap)
        keeping = asyncio.create_task(kept.keep())
        await kept.until(lambda: kept.all_proven)
        reader, writer = await asyncio.open_unix_connection(service.link)
        kept.stop()
        while found.exists():  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.01)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        if leaves:
            writer.close()
        await keeping
        writer.close()
        return answer

    return asyncio.run(story()), log.path.read_text()


def test_who_would_lose_what_it_has_in_hand_is_asked_once_it_has_nothing(tmp_path: Path) -> None:
    answer, log = stopped_beside_a_visitor(tmp_path, 60.0, leaves=True)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "kills" not in log


def test_visitor_who_does_not_leave_keeps_nobody_from_being_asked(tmp_path: Path) -> None:
    answer, log = stopped_beside_a_visitor(tmp_path, 3.0, leaves=False)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "kills" not in log, "it was asked before it would have been killed"


DEAF = "import os, sys; os.mkfifo(sys.argv[2]); os.open(sys.argv[2], os.O_RDWR)\n" + ENDS_AT_ONCE


def test_who_does_not_obey_the_word_is_told_by_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "OBEYS_WITHIN", 0.01)
    argv = (sys.executable, "-c", DEAF, "{socket}", "{control}")
    service, log = (
        dataclasses.replace(abrupt(tmp_path, 60.0), argv=argv, stop_word="q"),
        Log(tmp_path / "log", echo=False),
    )

    asyncio.run(started_and_stopped(service, log))
    assert "kills" not in log.path.read_text()
