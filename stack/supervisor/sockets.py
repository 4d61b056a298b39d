"""The public listening sockets. The supervisor holds them for as long as the stack lives and hands them down."""

from __future__ import annotations

import socket

__all__ = ["listen"]


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
