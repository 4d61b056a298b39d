"""The server as a whole: arguments, sockets, then the master until it ends."""

from __future__ import annotations

import sys
from pathlib import Path

from . import log
from .address import AddressError, Listener, listen, remove
from .arguments import settings
from .master import Master
from .process import open_standard_descriptors

__all__ = ["main"]

CANNOT_BIND = 1


def main(arguments: list[str]) -> int:
    """Run the server in the foreground; the exit code."""
    open_standard_descriptors()
    wanted = settings(arguments)
    sys.path[:0] = [str(Path(each).absolute()) for each in wanted.pythonpath]
    listeners: list[Listener] = []
    try:
        for each in wanted.addresses:
            listeners.append(listen(each, wanted.backlog, wanted.socket_mode))  # noqa: PERF401 - those before a failing one are kept
    except AddressError as error:
        for listener in listeners:
            remove(listener)
        log.line(str(error))
        return CANNOT_BIND
    return Master(wanted, listeners).run()
