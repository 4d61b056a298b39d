"""Lines on stderr: plain, one per event, one write each, so that processes do not mix theirs.

With `--log-file` descriptor 2 is that file: what the app and the interpreter write to stderr is there, too.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from .access import Access

MODE = 0o640  # tracebacks may quote what is not for everybody


def line(text: str) -> None:
    """Write one event. A log that cannot be written (disk full, reader gone) must not stop the server."""
    with contextlib.suppress(OSError):
        os.write(2, f"wsgi[{os.getpid()}] {text}\n".encode("utf-8", "backslashreplace"))


def write_to(path: str) -> None:
    """Let descriptor 2 be this file, opened by its name (again).

    Raises:
        OSError: it cannot be opened; nothing has changed.
    """
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC, MODE)
    os.dup2(fd, 2)
    os.close(fd)


def reopen(path: str, access: Access | None) -> None:
    """Open the logs again by their names, after they were moved; one that cannot be goes on where it was."""
    try:
        if path:
            write_to(path)
        if access is not None:
            access.reopen()
    except OSError as error:
        line(f"cannot open {error.filename} again: {error.strerror}; what was open is written on")


def failure(text: str, error: BaseException) -> None:
    """Write one event and the traceback of the error behind it, from the first frame that is not this server's."""
    frames = _outside(error.__traceback__)
    lines = traceback.format_exception(type(error), error, frames)
    line(f"{text}\n{''.join(lines).rstrip()}")


def _outside(frames: TracebackType | None) -> TracebackType | None:
    """The traceback without its first frames as long as they are in this package or in the import machinery."""
    ours = __file__.removesuffix("log.py")
    left = frames
    while left is not None:
        name = left.tb_frame.f_code.co_filename
        if not (name.startswith((ours, "<frozen importlib")) or name.endswith("importlib/__init__.py")):
            return left
        left = left.tb_next
    return None
