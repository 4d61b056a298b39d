"""What the workers tell of an app server that cannot be asked, in a file of the generation's.

They write it themselves (templates/app/tally.py.j2), each its own place; here is where what stands, and who reads it.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Any, Final

from stack.child import Policy
from stack.desired import File
from stack.render import render

__all__ = ["VARIABLE", "file", "read"]

HEAD: Final = struct.Struct("=qq")
"""Deaths in a row, and whether a worker has ever loaded the app."""
PLACE: Final = struct.Struct("=qdqqqqd")
"""pid, when it began to load the app (monotonic), whether it has; busy threads, requests, errors, requests a second."""
SIZE: Final = 64
"""Bytes from one place to the next; the head has the first."""
MOST: Final = 1 << 20
"""Bytes that are read of a file that may be another user's."""
VARIABLE: Final = "STACKCTL_TALLY"
"""Tells the workers where that file is."""


def file(name: str, directory: str) -> File:
    """The module with which a worker tells."""
    text = render(
        "app/tally.py.j2",
        name=name,
        head=HEAD.format,
        place=PLACE.format,
        size=SIZE,
        policy=Policy(),
        variable=VARIABLE,
    )
    return File(f"{directory}/stackctl_tally.py", text)


def read(path: str) -> list[dict[str, Any]]:
    """What each worker has told that lives or lived, the latest of each place.

    Raises:
        OSError: there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:  # noqa: PTH123 - it is open already
        data = stream.read(MOST)
    now, found = time.monotonic(), []
    for at in range(SIZE, len(data) - PLACE.size + 1, SIZE):
        pid, since, loaded, busy, requests, errors, rate = PLACE.unpack_from(data, at)
        if pid:
            found.append(
                {
                    "pid": pid,
                    "state": "ready" if loaded else "starting",
                    "age": round(max(0.0, now - since), 3),
                    "busy": busy,
                    "requests": requests,
                    "errors": errors,
                    "requests_per_second": round(rate, 2),
                }
            )
    return found
