"""What the service manager above us is told, on a real socket."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack.supervisor import notify

WITHIN = 30.0  # seconds: a deadline for what should take milliseconds


@contextmanager
def manager(*, abstract: bool = False) -> Iterator[tuple[socket.socket, str]]:
    with tempfile.TemporaryDirectory(prefix="n-", dir="/tmp") as directory:
        path = str(Path(directory, "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.bind(f"\0{path}" if abstract else path)
            line.settimeout(WITHIN)
            yield line, f"@{path}" if abstract else path


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_is_lines_of_words(abstract: bool) -> None:  # noqa: FBT001
    with manager(abstract=abstract) as (line, address):
        told = notify.Manager({"NOTIFY_SOCKET": address})
        assert told.listens
        told.ready("serves http://localhost/")
        assert line.recv(4096) == f"READY=1\nMAINPID={os.getpid()}\nSTATUS=serves http://localhost/".encode()
        told.status("the disk is full", 28)
        assert line.recv(4096) == b"STATUS=the disk is full\nERRNO=28"
        told.stopping("finishing")
        assert line.recv(4096) == b"STOPPING=1\nSTATUS=finishing"


def test_a_status_is_one_line_that_the_manager_takes() -> None:
    with manager() as (line, address):
        notify.Manager({"NOTIFY_SOCKET": address}).ready("no luck\nSTOPPING=1\n" + "\N{SNOWMAN}" * 5000)
        message = line.recv(65536)
        assert len(message) <= 4096
        assert [each.partition(b"=")[0] for each in message.split(b"\n")] == [b"READY", b"MAINPID", b"STATUS"]


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody-listens-here", "vsock:2:1234", "notify"])
def test_nobody_to_tell_is_no_error(address: str) -> None:
    told = notify.Manager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    told.ready("serves")
    told.alive()
    assert told.listens == (address[:1] in "/@" and address != "")


def test_words_of_the_manager_are_taken_out_of_an_environment() -> None:
    environ = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    assert set(notify.taken(environ)) == {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({}, 0.0),
    ],
)
def test_signs_of_life_are_twice_as_often_as_the_manager_wants(words: dict[str, str], seconds: float) -> None:
    assert notify.Manager({"NOTIFY_SOCKET": "/run/notify", **words}).alive_every == seconds
    assert notify.Manager(words).alive_every == 0.0
