"""A generation's process while it lives: who it is, and what it says, line by line."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass, field

from stack.desired import Service
from stack.supervisor.hints import hint
from stack.supervisor.log import LONGEST, Log
from stack.supervisor.runner import Spawned

__all__ = ["Process"]

TAIL = 200  # lines kept, for the day it fails


@dataclass(slots=True, eq=False)
class Process:
    """`since` is in seconds since the epoch; `tail` the last lines that it wrote."""

    service: Service
    number: int
    serial: int
    spawned: Spawned
    log: Log
    since: float = field(default_factory=time.time)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    _partial: bytes = b""
    _open: bool = True

    @property
    def pid(self) -> int:
        """The process's id, which is its group's and session's too."""
        return self.spawned.pid

    def listen(self) -> None:
        """Reads what it writes, whenever it writes: a little at a time, as it may never stop to write."""
        asyncio.get_running_loop().add_reader(self.spawned.output, self._read_some)

    def read(self) -> None:
        """Takes all that is there now. At its end the pipe is closed, which may be long after the process has gone."""
        while self._open and self._read_some():
            pass

    def close(self) -> None:
        """Stops reading."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self.spawned.output)
            os.close(self.spawned.output)

    def _read_some(self) -> bool:
        """Whether there was something."""
        try:
            piece = os.read(self.spawned.output, 65536)
        except BlockingIOError:
            return False
        *lines, self._partial = (self._partial + piece).split(b"\n")
        if not piece or len(self._partial) > LONGEST:
            lines, self._partial = [*lines, self._partial], b""
        for line in lines:
            if line or piece:
                self._take(line.decode("utf-8", "replace"))
        if not piece:
            self.close()
        return bool(piece)

    def _take(self, line: str) -> None:
        self.tail.append(line)
        self.log.line(self.service.name, self.pid, line)
        if words := hint(line):
            self.log.say(words)
