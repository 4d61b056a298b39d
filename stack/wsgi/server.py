"""The server as a whole: arguments, sockets, then the master until it ends."""

from __future__ import annotations

import sys
from pathlib import Path

from . import log
from .access import Access
from .address import AddressError, Listener, backlog_most, listen, remove
from .arguments import settings
from .master import Master
from .process import open_standard_descriptors
from .state import Teller

__all__ = ["main"]

CANNOT_OPEN = 3  # exit code: a socket or a log; as of an app that cannot be loaded, it is for the caller to change


def main(arguments: list[str]) -> int:
    """Run the server in the foreground; the exit code."""
    open_standard_descriptors()
    wanted = settings(arguments)
    try:
        if wanted.log_file:
            log.write_to(wanted.log_file)
        access = Access(wanted.access_log, wanted.access_format) if wanted.access_log else None
    except OSError as error:
        log.line(f"cannot open the log {error.filename}: {error.strerror}")
        return CANNOT_OPEN
    backlog = backlog_most(wanted.backlog)
    if backlog < wanted.backlog:
        log.line(f"--backlog {wanted.backlog}: the kernel allows {backlog} (net.core.somaxconn)")
        wanted = wanted._replace(backlog=backlog)
    sys.path[:0] = [str(Path(each).absolute()) for each in wanted.pythonpath]
    listeners: list[Listener] = []
    try:
        for each in wanted.addresses:
            listeners.append(listen(each, wanted.backlog, wanted.socket_mode))  # noqa: PERF401 - those before a failing one are kept
        teller = Teller(wanted.state) if wanted.state else None
    except AddressError as error:
        for listener in listeners:
            remove(listener)
        log.line(str(error))
        return CANNOT_OPEN
    for listener in listeners:
        if listener.unix and listener.open_to_all and not wanted.forwarded_from.unix:
            log.line(
                f"{listener.address.text} lets everybody on this machine connect: it takes HTTP only, unless "
                "--protocol says otherwise, and believes no X-Forwarded-For; set SocketMode=0660 in its unit, or give "
                "--forwarded-from unix"
            )
    return Master(wanted, listeners, access, teller).run()
