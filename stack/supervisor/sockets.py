"""The public listening sockets. The supervisor holds them for as long as the stack lives and hands them down."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import MutableMapping

__all__ = ["address", "inherited", "listen"]

FIRST_INHERITED = 3  # descriptor; SD_LISTEN_FDS_START of sd_listen_fds(3)
ANNOUNCED_IN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def listen(address: str, backlog: int) -> socket.socket:
    """A listening socket at `HOST:PORT` or `[HOST]:PORT`.

    It does not block: several processes wait on it, and only one of them gets a connection.

    Raises:
        OSError: the address is taken, not of this machine, or not ours to use.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # nginx's default, too
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def inherited(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that whoever started us opened for us; see sd_listen_fds(3). The environment names them only once.

    Raises:
        OSError: something else is where a socket was announced.
    """
    words = {name: environ.pop(name, "") for name in ANNOUNCED_IN}
    if words["LISTEN_PID"] != str(os.getpid()) or not words["LISTEN_FDS"].isdecimal():
        return []  # meant for whoever started us
    given: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for number in range(FIRST_INHERITED, FIRST_INHERITED + int(words["LISTEN_FDS"])):
            given.append(opened.enter_context(socket.socket(fileno=number)))
            given[-1].set_inheritable(False)
            given[-1].setblocking(False)
        opened.pop_all()
    return given


def address(given: socket.socket) -> str:
    """Where a socket listens, as a plan writes it; one that a plan cannot mean is named as well as it can be."""
    if given.family not in (socket.AF_INET, socket.AF_INET6):
        name = given.getsockname()
        return f"the socket {name if isinstance(name, str) else os.fsdecode(name)!r}"
    host, port = given.getsockname()[:2]
    found = ipaddress.ip_address(host)
    where = f"[{found}]:{port}" if found.version == 6 else f"{found}:{port}"
    listens = given.type == socket.SOCK_STREAM and given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return where if listens else f"{where} (on which nobody can connect)"
