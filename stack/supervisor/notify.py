"""What the service manager above us is told: systemd, or whoever else sets NOTIFY_SOCKET. See sd_notify(3).

A message is one datagram of lines NAME=value. A manager that is gone, or that takes nothing, costs its messages and
nothing else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

__all__ = ["Manager", "taken"]

WORDS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
WITHIN = 1.0  # seconds that we wait for room in the manager's queue; systemd's holds hundreds of messages
LONGEST = 900  # characters of a value: systemd drops a message of more than 4096 bytes, READY=1 and all


def taken(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Takes the manager's words out of an environment: nothing that we start must mistake them for its own."""
    return {name: environ.pop(name) for name in WORDS if name in environ}


class Manager:
    """Who started us, if it wants to be told; else every message goes nowhere."""

    def __init__(self, words: Mapping[str, str]) -> None:
        """`words` as `taken` gave them."""
        self._address = _address(words.get("NOTIFY_SOCKET", ""))
        self.alive_every = _alive_every(words) if self._address else 0.0
        """Seconds between two signs of life; 0 if it does not wait for any."""

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address != b""

    def status(self, text: str, errno: int = 0) -> None:
        """What we are doing, in a line for people; and the error of the system that ended it, if one did."""
        self._tell(STATUS=text, **({"ERRNO": errno} if errno else {}))

    def ready(self, status: str) -> None:
        """A start, or a reload, is over: what was asked for serves, or what served goes on."""
        self._tell(READY=1, MAINPID=os.getpid(), STATUS=status)

    def reloading(self, status: str) -> None:
        """A reload begins: not ready, until we say so again."""
        self._tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000, STATUS=status)

    def stopping(self, status: str) -> None:
        """The end begins."""
        self._tell(STOPPING=1, STATUS=status)

    def alive(self) -> None:
        """A sign of life."""
        self._tell(WATCHDOG=1)

    def _tell(self, **words: object) -> None:
        if not self._address:
            return
        message = "\n".join(f"{name}={' '.join(str(value).split())[:LONGEST]}" for name, value in words.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(WITHIN)
            line.sendto(message.encode("utf-8", "replace"), self._address)


def _address(text: str) -> bytes:
    """A path, or with @ a name in the abstract namespace, which the kernel writes with a zero; else nothing we know."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else b""


def _alive_every(words: Mapping[str, str]) -> float:
    """Half of what the manager waits, as sd_watchdog_enabled(3) advises; only if it is us whom it watches."""
    microseconds, pid = words.get("WATCHDOG_USEC", ""), words.get("WATCHDOG_PID", "")
    if not (microseconds.isascii() and microseconds.isdecimal()) or pid not in ("", str(os.getpid())):
        return 0.0
    return int(microseconds) / 2e6
