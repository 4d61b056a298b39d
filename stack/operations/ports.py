"""The public addresses: taken or free, and by whom. Nothing is ever done to who holds one."""

from __future__ import annotations

import errno
import socket

import psutil

from stack.errors import ConfigError, StackError
from stack.supervisor import sockets

__all__ = ["listening"]


def listening(address: str, backlog: int) -> socket.socket:
    """A listening socket at a public address.

    Raises:
        StackError: the address is taken; by whom, and a free port, are said where they can be known.
        ConfigError: the address is not one of this machine, or not ours to use.
    """
    try:
        return sockets.listen(address, backlog)
    except OSError as error:
        port = address.rpartition(":")[2]
        if error.errno == errno.EADDRINUSE:
            raise StackError(
                f"cannot listen on {address}: {holder(int(port))}", f"A free port: --listen {free(address)}"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ConfigError(
                f"cannot listen on {address}: ports below 1024 are root's",
                f"Use another one (--listen {free(address)}), start as root, or once, as root:\n"
                f"sysctl -w net.ipv4.ip_unprivileged_port_start={port}",
            ) from None
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror}", "`ip address` shows the addresses of this machine."
        ) from None


def holder(port: int) -> str:
    """Who listens on a port, as far as we may see."""
    try:
        found = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN and each.laddr]
    except psutil.Error:
        found = []
    for each in found:
        if each.laddr.port != port:  # type: ignore[union-attr]
            continue
        try:
            process = psutil.Process(each.pid)
            return f"pid {each.pid} has it ({' '.join(process.cmdline())[:100] or process.name()})"
        except (psutil.Error, ValueError, TypeError):
            return "another user's process has it; `sudo ss -ltnp` shows which"
    return "another process has it"


def free(address: str) -> str:
    """The next address whose port is free."""
    host, _, port = address.rpartition(":")
    for candidate in range(max(int(port) + 1, 8000), 65536):
        try:
            sockets.listen(f"{host}:{candidate}", 1).close()
        except OSError:
            continue
        return f"{host}:{candidate}"
    return f"{host}:PORT"
