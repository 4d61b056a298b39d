"""What an app has made while it was imported that does not survive a fork, found before there is one.

A thread is not there in the child, and whoever waits for it waits for ever. A connection would be used by several
processes at once, and each would read the answers of the others; so would a database's file (SQLite), an epoll, or
any file that is written at a position of its own. A log file that is appended to, or a file that is only read, is
harmless. Threads of C libraries are said and not refused: numpy has them, and looks after itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import threading
from pathlib import Path


def descriptors() -> set[int]:
    """The descriptors that are open; not the one that listing them takes, whose number the next file will have."""
    return {int(each) for each in os.listdir("/proc/self/fd") if _is_open(int(each))}  # noqa: PTH208 - closes it first


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def threads() -> list[str]:
    """The threads that Python knows, but for this one."""
    return [f"thread {each.name}" for each in threading.enumerate() if each is not threading.current_thread()]


def foreign_threads() -> int:
    """How many threads there are that Python does not know."""
    return max(0, len(list(Path("/proc/self/task").iterdir())) - threading.active_count())


def opened(before: set[int]) -> list[str]:
    """What has been opened since, and must not be shared by processes, each with its name."""
    return [kind for fd in sorted(descriptors() - before) if (kind := _kind(fd))]


def _kind(fd: int) -> str:
    """What a descriptor is; "" if sharing it does no harm, or it is closed."""
    try:
        status = os.fstat(fd)
        where = str(Path(f"/proc/self/fd/{fd}").readlink())
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return ""
    if stat.S_ISSOCK(status.st_mode):
        return f"socket {_ends(fd)}"
    if "eventpoll" in where or "io_uring" in where:
        return f"{where} of an event loop"
    if stat.S_ISREG(status.st_mode) and flags & os.O_ACCMODE == os.O_RDWR and not flags & os.O_APPEND:
        return f"file {where} open for reading and writing"
    return ""


def _ends(fd: int) -> str:
    """The peer of a socket, or where it listens."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as found:
        with contextlib.suppress(OSError):
            return f"to {_address(found.getpeername())}"
        return f"at {_address(found.getsockname())}"
    return f"{fd}"


def _address(found: object) -> str:
    if isinstance(found, tuple) and len(found) >= 2:
        return f"[{found[0]}]:{found[1]}" if ":" in str(found[0]) else f"{found[0]}:{found[1]}"
    text = os.fsdecode(found) if isinstance(found, bytes) else str(found)
    return text or "an unnamed peer"
