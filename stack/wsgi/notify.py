"""What a service manager above us is told, if there is one: sd_notify(3), one datagram of lines NAME=value each.

A manager that is gone, or takes nothing, costs its messages and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

WORDS = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
WITHIN = 1.0  # seconds to wait for room in its queue


class Manager:
    """The one that NOTIFY_SOCKET names. Takes the words from the environment: what the app starts must not use them."""

    def __init__(self) -> None:
        path, *_ = [os.environ.pop(each, "") for each in WORDS]
        self._address = b"\0" + os.fsencode(path[1:]) if path.startswith("@") else os.fsencode(path)

    def ready(self, status: str) -> None:
        """The start, or a reload, is over."""
        self._tell(READY=1, MAINPID=os.getpid(), STATUS=status)

    def reloading(self) -> None:
        """A reload begins."""
        self._tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stopping(self) -> None:
        """The end begins."""
        self._tell(STOPPING=1)

    def _tell(self, **words: object) -> None:
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in words.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(WITHIN)
            line.sendto(message.encode(), self._address)
