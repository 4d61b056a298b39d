"""`logs`: what the services wrote, from the file, and on as it comes."""

from __future__ import annotations

import os
import time
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
    tag = f" {name}[" if name not in ("", ACCESS) else ""
    try:
        stream = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise StackError(f"there is no log yet: {path}", "`stackctl up` starts the stack and its log.") from None
    with stream:
        said = [line for line in stream if tag in line[:64]]
        if tag and not said and not follow:
            stream.seek(0)
            tags = {line.split(" ", 3)[2].partition("[")[0] for line in stream if line.count(" ") > 2}
            raise UsageError(f"{name} has written nothing", f"There is: {', '.join(sorted({*tags, ACCESS}))}.")
        yield from said[-last:]
        while follow:
            line = stream.readline()
            if line.endswith("\n"):
                if tag in line[:64]:
                    yield line
                continue
            stream.seek(stream.tell() - len(line.encode()))
            if _was_set_aside(path, stream.fileno()):
                yield from lines(log, name, last=0, follow=True)
                return
            time.sleep(LOOK_AGAIN)


def _was_set_aside(path: Path, descriptor: int) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
