"""Sockets that whoever started us opened, and where they listen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stack.supervisor import sockets

WITHIN = 30.0  # seconds: a deadline for what should take milliseconds


@pytest.mark.parametrize(
    ("family", "host", "written"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "", "0.0.0.0"),
        (socket.AF_INET6, "::1", "[::1]"),
        (socket.AF_INET6, "::", "[::]"),
    ],
)
def test_an_address_is_written_as_in_a_plan(family: socket.AddressFamily, host: str, written: str) -> None:
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with socket.create_server((host, 0), family=family) as one:
        assert sockets.address(one) == f"{written}:{one.getsockname()[1]}"


def test_what_no_plan_means_is_named_too() -> None:
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{directory}/s")
        one.listen()
        assert sockets.address(one) == f"the socket '{directory}/s'"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        assert sockets.address(one).endswith("(on which nobody can connect)")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        assert sockets.address(one).endswith("(on which nobody can connect)"), "it does not listen"


SCRIPT = """
import json, os, socket, sys
from stack.supervisor import sockets
for number, each in enumerate(map(int, sys.argv[2:])):
    os.dup2(each, 3 + number)
os.environ["LISTEN_PID"] = sys.argv[1] or str(os.getpid())
given = sockets.inherited(os.environ)
print(json.dumps([
    [[each.fileno(), sockets.address(each), each.get_inheritable(), each.getblocking()] for each in given],
    [name for name in os.environ if name.startswith("LISTEN_")],
]))
"""


def taken(*descriptors: int, count: str = "", pid: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, pid, *map(str, descriptors)],
        env={**os.environ, "LISTEN_FDS": count or str(len(descriptors)), "LISTEN_FDNAMES": "a:b"},
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def test_sockets_are_taken_over_and_not_handed_on_by_accident() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        where = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]
        done = taken(one.fileno(), other.fileno())
    assert json.loads(done.stdout) == [[[3, where[0], False, False], [4, where[1], False, False]], []], done.stderr


@pytest.mark.parametrize(("count", "pid"), [("1", "1"), ("", ""), ("two", "")])
def test_sockets_for_somebody_else_are_none(count: str, pid: str) -> None:
    done = taken(count=count, pid=pid)
    assert json.loads(done.stdout) == [[], []], done.stderr


def test_a_descriptor_that_is_no_socket_is_an_error() -> None:
    with Path(os.devnull).open() as nothing:
        assert "OSError" in taken(nothing.fileno()).stderr
