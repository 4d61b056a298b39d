"""What services say, and what the supervisor says of them: lines with time, service and pid, in one file.

Writing never stops the stack: a full disk or a terminal that takes nothing costs lines, which are counted.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque
from pathlib import Path

__all__ = ["Log"]

LARGEST = 10 * 1024 * 1024
"""Bytes after which the file is set aside as `stack.log.1`: enough for weeks of a quiet site, small enough to mail."""
LONGEST = 16 * 1024
"""Bytes of one line; a longer one is broken."""


class Log:
    """The log file, and in the foreground standard output too, once it is released."""

    def __init__(self, path: Path, *, echo: bool) -> None:
        """Opens, or makes, the file."""
        self.path = path
        self.lost = 0
        self._echo = echo
        self._colour = echo and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._pending: deque[bytes] = deque(maxlen=1000)
        self._held = True
        self._file = -1
        self._size = 0

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        self.line("stack", os.getpid(), text)

    def line(self, tag: str, pid: int, text: str) -> None:
        """A line of a service's."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        line = f"{now} {tag}[{pid}] {text}\n".encode("utf-8", "replace")
        self._write(line)
        if self._echo:
            shown = f"\x1b[2m{now} {tag}[{pid}]\x1b[0m {text}\n".encode("utf-8", "replace") if self._colour else line
            self._pending.append(shown)
            self.flush()

    def release(self) -> None:
        """Shows what has come so far, and from now on what comes: the start-up summary has been said."""
        self._held = False
        self.flush()

    def flush(self) -> None:
        """Shows what standard output takes at this moment, without waiting for it."""
        if self._held:
            return
        waiter = select.poll()
        with contextlib.suppress(OSError, ValueError):
            waiter.register(1, select.POLLOUT)
            while self._pending and waiter.poll(0):
                piece = self._pending[0]
                written = os.write(1, piece[: select.PIPE_BUF])
                self._pending.popleft()
                if written < len(piece):
                    self._pending.appendleft(piece[written:])

    def _write(self, line: bytes) -> None:
        try:
            if self._file < 0:
                self._open()
            if self._size > LARGEST:
                with contextlib.suppress(OSError):  # a file that is too long is better than none
                    self._set_aside()
            os.write(self._file, line)
            self._size += len(line)
        except OSError:
            self.lost += 1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._file).st_size

    def _set_aside(self) -> None:
        self.path.replace(self.path.with_name(self.path.name + ".1"))
        full, self._file = self._file, -1  # whatever fails now, the next line opens the file again
        os.close(full)
        self._open()
