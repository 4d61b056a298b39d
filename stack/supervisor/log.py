"""What services say, and what the supervisor says of them: lines with time, service and pid, in one file.

Writing never stops the stack: a full disk or a terminal that takes nothing costs lines, which are counted, and the
count is the first thing that is written when there is room again. A file that has grown large is set aside by renaming
it, as `stack.log.1`; those before it move up.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections import deque
from pathlib import Path

from stack.desired import Logs
from stack.supervisor.line import Line

__all__ = ["LONGEST", "Log", "set_aside", "set_aside_if_full"]

LONGEST = 16 * 1024
"""Bytes of one line; a longer one is broken."""
WAITING = 1000
"""Lines that wait for a terminal; the oldest give way to more."""


class Log:
    """The log file, and in the foreground standard output too, once it is released."""

    def __init__(self, path: Path, *, echo: bool, kept: Logs | None = None) -> None:
        """The file is opened, or made, with the first line."""
        self.path = path
        self.kept = kept or Logs()
        self.lost = 0  # lines since the last that could be written
        self._why = ""
        self._file = -1
        self._size = 0
        self._terminal = _Terminal() if echo else None

    def say(self, text: str) -> None:
        """A line of the supervisor's own, or several."""
        for each in text.splitlines():
            self.line("stack", os.getpid(), each)

    def line(self, tag: str, pid: int, text: str) -> None:
        """A line of a service's."""
        line = Line.now(tag, pid, text)
        self._write(line)
        if self._terminal is not None:
            self._terminal.show(self._bytes(line), line.as_text() if self.kept.format == "text" else "")

    def release(self) -> None:
        """Shows what has come so far, and from now on what comes: the start-up summary has been said."""
        if self._terminal is not None:
            self._terminal.held = False
        self.flush()

    def flush(self) -> None:
        """Shows what standard output takes at this moment, without waiting for it."""
        if self._terminal is not None:
            self._terminal.flush()

    def reopen(self) -> None:
        """Opens the file by its name again: somebody has moved it. If that fails, the one that is open goes on."""
        with contextlib.suppress(OSError):
            self._open()

    def _write(self, line: Line) -> None:
        try:
            if self._file < 0:
                self._open()
            if _is_full(self._size, self.kept):
                with contextlib.suppress(OSError):  # a file that is too long is better than none
                    with contextlib.suppress(FileNotFoundError):  # set aside, but not opened again since
                        set_aside(self.path, self.kept.keep)
                    self._open()
            piece = self._bytes(line)
            if self.lost:
                piece = self._bytes(Line.now("stack", os.getpid(), self._news())) + piece
            self._append(piece)
            self.lost = 0
        except OSError as error:
            self.lost += 1
            self._why = error.strerror or str(error)

    def _news(self) -> str:
        return f"{self.lost} {'line was' if self.lost == 1 else 'lines were'} lost: {self._why}"

    def _append(self, piece: bytes) -> None:
        """All of it or nothing: what a full disk took of a line would garble the next one."""
        done = 0
        try:
            while done < len(piece):
                done += os.write(self._file, piece[done:])
        except OSError:
            if done:
                os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_CUR) - done)
            raise
        self._size += done

    def _bytes(self, line: Line) -> bytes:
        text = line.as_json() if self.kept.format == "json" else line.as_text()
        return f"{text}\n".encode("utf-8", "replace")

    def _open(self) -> None:
        """Never through a link, and nothing that would block or is a device: what is planted there gets no line."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fresh = os.open(self.path, flags, 0o640)
        try:
            size = _file_size(fresh)
            if size and os.pread(fresh, 1, size - 1) != b"\n":
                size += os.write(fresh, b"\n")  # whoever wrote it was killed in the middle of a line
        except OSError:
            os.close(fresh)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = fresh, size


def _file_size(descriptor: int) -> int:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("what has the log's name is not a file")
    return found.st_size


def set_aside(path: Path, keep: int) -> None:
    """Moves a log to `NAME.1`, those before it one up, and so the oldest away. Whoever writes it opens it again.

    Raises:
        OSError: it is not there, or cannot be moved. To try again costs no older file: those move up to the first gap.
    """
    path.lstat()
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, keep + 1))]
    gap = next((number for number, name in enumerate(names) if not os.path.lexists(name)), keep)
    for number in range(gap, 0, -1):
        names[number - 1].replace(names[number])


def set_aside_if_full(path: Path, kept: Logs) -> bool:
    """The same for a log that somebody else writes; whether it was."""
    try:
        if not _is_full(path.lstat().st_size, kept):
            return False
        set_aside(path, kept.keep)
    except OSError:
        return False  # not there, or not to be moved: too long is better than none
    return True


def _is_full(size: int, kept: Logs) -> bool:
    return 0 < kept.size <= size


class _Terminal:
    """Standard output, which is never waited for: a terminal that is stopped must not stop the stack."""

    def __init__(self) -> None:
        self.held = True
        self._coloured = os.isatty(1) and not os.environ.get("NO_COLOR")
        self._waiting: deque[bytes] = deque()
        self._rest = b""  # of a line that has been shown in part
        self._unshown = 0
        self._output = 1
        # A description of our own does not block; that of descriptor 1 is shared with others, who may want it to.
        with contextlib.suppress(OSError):  # there is none, or it was opened by another user
            if not stat.S_ISREG(os.fstat(1).st_mode):  # a file would have a second position, and lines over others
                self._output = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def show(self, line: bytes, text: str) -> None:
        """A line; `text` is the same if it may be coloured."""
        if self._coloured and text:
            head, _, rest = text.partition("] ")
            line = f"\x1b[2m{head}]\x1b[0m {rest}\n".encode("utf-8", "replace")
        if len(self._waiting) == WAITING:
            self._waiting.popleft()
            self._unshown += 1
        self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        if self.held:
            return
        waiter = select.poll()
        with contextlib.suppress(OSError, ValueError):
            waiter.register(self._output, select.POLLOUT)
            while self._fill() and waiter.poll(0):
                # Where the description is not ours, as with a socket, a little at once is least likely to block.
                self._rest = self._rest[os.write(self._output, self._rest[: select.PIPE_BUF]) :]

    def _fill(self) -> bytes:
        """What is to be shown next."""
        if not self._rest and self._unshown:
            self._rest = f"... {self._unshown} lines that nobody took: see stackctl logs\n".encode()
            self._unshown = 0
        elif not self._rest and self._waiting:
            self._rest = self._waiting.popleft()
        return self._rest
