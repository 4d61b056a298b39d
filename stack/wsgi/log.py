"""Lines on stderr: plain, one per event, one write each, so that processes do not mix theirs."""

from __future__ import annotations

import contextlib
import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


def line(text: str) -> None:
    """Write one event. A log that cannot be written (disk full, reader gone) must not stop the server."""
    with contextlib.suppress(OSError):
        os.write(2, f"wsgi[{os.getpid()}] {text}\n".encode("utf-8", "backslashreplace"))


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
