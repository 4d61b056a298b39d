"""`logs`: what the services wrote, from the file, and on as it comes."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from stack.errors import StackError, UsageError

__all__ = ["ACCESS", "lines"]

ACCESS = "access"
LOOK_AGAIN = 0.1  # seconds between two looks at a file that has nothing new


def lines(log: Path, name: str, last: int, *, follow: bool) -> Iterator[str]:
    """The last lines of a service (of all, if `name` is empty), and, following, those that come.

    Raises:
        StackError: there is no log yet.
        UsageError: the log has no service of that name.
    """
    path = log.with_name("access.log") if name == ACCESS else log
    wanted = name if name != ACCESS else ""
    try:
        stream = path.open("rb")  # where a line ends in it is counted in bytes
    except FileNotFoundError:
        raise StackError(f"there is no log yet: {path}", "`stackctl up` starts the stack and its log.") from None
    with stream:
        said = deque((line for line in map(_text, stream) if wanted in ("", _writer(line))), maxlen=last)
        if wanted and not said and last and not follow:
            raise UsageError(f"{name} has written nothing", f"There is: {', '.join(sorted({*_tags(path), ACCESS}))}.")
        yield from said
        while follow:
            line = stream.readline()
            if line.endswith(b"\n"):
                if wanted in ("", _writer(_text(line))):
                    yield _text(line)
                continue
            stream.seek(-len(line), os.SEEK_CUR)
            if _was_set_aside(path, stream.fileno()):
                yield from lines(log, name, last=sys.maxsize, follow=True)
                return
            time.sleep(LOOK_AGAIN)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _writer(line: str) -> str:
    """Whose line it is: its third word, after date and time, without the pid."""
    words = line.split(" ", 3)
    return words[2].partition("[")[0] if len(words) > 3 else ""


def _tags(path: Path) -> set[str]:
    """Who has written."""
    with path.open("rb") as stream:
        return {_writer(_text(line)) for line in stream} - {""}


def _was_set_aside(path: Path, descriptor: int) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
