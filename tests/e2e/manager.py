"""A service manager as stackctl sees one: a socket that it is told things on, and sockets that it is handed."""

from __future__ import annotations

import socket
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .project import WITHIN

# Between fork and exec, as systemd does: the sockets from descriptor 3 on, and who is meant.
HANDED = """
import os, sys
given, command = sys.argv[1].split(","), sys.argv[2:]
high = [os.dup2(int(each), 100 + number) for number, each in enumerate(given)]
for number, each in enumerate(high):
    os.dup2(each, 3 + number)
os.environ |= {"LISTEN_FDS": str(len(given)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "x"}
os.execvp(command[0], command)
"""


def handed(*listeners: socket.socket) -> tuple[str, ...]:
    """What to put before a command that shall be handed these sockets; the process is the command's in the end."""
    for each in listeners:
        each.set_inheritable(True)
    return (sys.executable, "-c", HANDED, ",".join(str(each.fileno()) for each in listeners))


@dataclass(frozen=True)
class Message:
    """What it was told, and by which process, as the kernel says."""

    words: dict[str, str]
    pid: int

    @property
    def status(self) -> str:
        return self.words.get("STATUS", "")

    @property
    def kind(self) -> str:
        """What it means to systemd; "" for a mere line of status."""
        return next((each for each in ("READY", "RELOADING", "STOPPING", "WATCHDOG") if each in self.words), "")


class Manager:
    """Hears all that is told."""

    def __init__(self, line: socket.socket, address: str) -> None:
        self.address = address
        self.heard: list[Message] = []
        self._line = line

    def next(self, within: float = WITHIN) -> Message:
        """The next message. Raises TimeoutError."""
        self._line.settimeout(within)
        text, extra, _, _ = self._line.recvmsg(4096, socket.CMSG_SPACE(struct.calcsize("3i")))
        message = Message(dict(line.split("=", 1) for line in text.decode().split("\n")), _sender(extra))
        self.heard.append(message)
        return message

    def until(self, kind: str, status: str = "") -> Message:
        """The next message of this kind, with this in its status; what came before it is in `heard`."""
        while True:
            message = self.next()
            if message.kind == kind and status in message.status:
                return message

    def hears_nothing_within(self, seconds: float) -> None:
        """Wait until it has heard what was said before, and then nothing for so long: in the end it does."""
        with suppress(TimeoutError, BlockingIOError):
            while len(self.heard) < 1000:
                self.next(seconds)
            raise AssertionError(f"it is told more and more: {self.heard[-1]}")

    @property
    def kinds(self) -> list[str]:
        """What was heard, without signs of life and mere lines of status."""
        return [each.kind for each in self.heard if each.kind not in ("", "WATCHDOG")]


def _sender(extra: Sequence[tuple[int, int, bytes]]) -> int:
    ((level, kind, credentials),) = extra
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


@contextmanager
def listening(*, abstract: bool = False) -> Iterator[Manager]:
    """A manager that hears; its `address` is what NOTIFY_SOCKET says."""
    with tempfile.TemporaryDirectory(prefix="n-", dir="/tmp") as directory:
        path = str(Path(directory, "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            line.bind(f"\0{path}" if abstract else path)
            yield Manager(line, f"@{path}" if abstract else path)


def environment(manager: Manager, watchdog: float = 0.0) -> dict[str, str]:
    """What a command finds that shall tell this manager, which waits `watchdog` seconds for a sign of life."""
    words = {"NOTIFY_SOCKET": manager.address}
    return words | ({"WATCHDOG_USEC": f"{watchdog * 1e6:.0f}"} if watchdog else {})
