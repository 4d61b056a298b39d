"""The addresses to listen on: `unix:PATH`, `HOST:PORT`, `[::1]:PORT` or `fd://N`, and the sockets that they become.

A unix socket is made under a umask, so that at no moment anybody can connect but those whom its mode admits: its owner,
at most its group, never others, for whoever can connect is believed as the web server is. A path where something still
listens is left alone; one that nobody listens on any more (its server was killed) is replaced. An inherited socket is
neither shut down nor removed: it belongs to whoever handed it down, and may be open to all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

PATH_LIMIT = 107  # bytes: sun_path of 108 with its final zero
OWNER_ONLY = 0o600  # permissions of a unix socket; connecting takes the one to write
PORT = re.compile(r"[0-9]{1,5}")

NEXT = {  # what to do about it, by the system's error
    errno.EADDRINUSE: "; `ss -lntp` names who listens there",
    errno.EACCES: "; ports below 1024 are root's, directories their owners'",
    errno.EADDRNOTAVAIL: "; it is not this machine's, which `ip address` lists",
    errno.EBADF: "; whoever starts this server should hand down a socket under that number",
    errno.ENOENT: "; make its directory first",
}


class AddressError(Exception):
    """An address that is malformed, or that cannot be listened on. The message names it and the reason."""


class Address(NamedTuple):
    """Where to listen: exactly one of `path`, `host` with `port`, and `fd` is meant."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0
    fd: int | None = None


class Listener(NamedTuple):
    """A listening socket, non-blocking. `made` tells the unix socket that we made from a later one at its path.

    `open_to_all`: others than its owner and its group can connect.
    """

    address: Address
    socket: socket.socket
    made: tuple[int, int, int] | None = None
    open_to_all: bool = True

    @property
    def unix(self) -> bool:
        """Whether peers are on this machine, admitted by the socket's mode."""
        return self.socket.family == socket.AF_UNIX


def acceptor(listening: socket.socket) -> Callable[[], tuple[socket.SocketType, object]]:
    """What accepts a connection, as socket.accept() does, but does not wrap it: 5 instead of 8.5 us.

    With uwsgi and SCGI that is a part of each request.
    """
    accept, family = listening._accept, int(listening.family)  # type: ignore[attr-defined] # noqa: SLF001 - what socket.accept() calls

    def accepted() -> tuple[socket.SocketType, object]:
        fd, peer = accept()
        return socket.SocketType(family, socket.SOCK_STREAM, 0, fd), peer

    return accepted


def parse(text: str) -> Address:
    """The address that this text means.

    Raises:
        AddressError: it is none of the forms.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path:
            raise AddressError(f"{text}: no path after unix:")
        if len(os.fsencode(path)) > PATH_LIMIT:
            raise AddressError(f"{text}: a unix socket's path has at most {PATH_LIMIT} bytes")
        return Address(text, path=path)
    if text.startswith("fd://"):
        if not PORT.fullmatch(text[5:]):
            raise AddressError(f"{text}: a number of a file descriptor should follow fd://")
        return Address(text, fd=int(text[5:]))
    host, colon, port = text.rpartition(":")
    if not colon or not PORT.fullmatch(port) or int(port) > 65535:
        raise AddressError(f"{text}: not unix:PATH, HOST:PORT or fd://N")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text}: write an IPv6 address in brackets, as in [::1]:8000")
    return Address(text, host=host, port=int(port))


def listen(address: Address, backlog: int, mode: int = OWNER_ONLY) -> Listener:
    """Bind and listen; a unix socket that is made has the permissions `mode`.

    Raises:
        AddressError: it cannot be done, and why.
    """
    try:
        if address.fd is not None:
            return _inherited(address, backlog)
        return _unix(address, backlog, mode) if address.path else _tcp(address, backlog)
    except OSError as error:
        then = NEXT.get(error.errno or 0, "")
        raise AddressError(f"cannot bind {address.text}: {error.strerror or error}{then}") from error


def backlog_most(wanted: int = 2048) -> int:
    """`wanted` as far as the kernel allows it: it would cut the number silently."""
    with contextlib.suppress(OSError, ValueError):
        return min(wanted, int(Path("/proc/sys/net/core/somaxconn").read_text("ascii")))
    return wanted


def refuse_new(listener: Listener) -> None:
    """Let no further connection into the queue of a unix socket of our own; those in it can still be accepted.

    On Linux that is what shutting down the reading side of a listening unix socket does: connecting is refused from
    then on. A TCP socket would drop its queue, and an inherited one is not ours.
    """
    if listener.made is not None:
        with contextlib.suppress(OSError):
            listener.socket.shutdown(socket.SHUT_RD)


def remove(listener: Listener) -> None:
    """Take the unix socket that we made from the disk, unless another has taken its place."""
    with contextlib.suppress(OSError):
        if listener.made is not None and _identity(listener.address.path) == listener.made:
            Path(listener.address.path).unlink()


def _identity(path: str) -> tuple[int, int, int]:
    """Device, inode and time of making: the number of a removed inode is soon given to the next one."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _unix(address: Address, backlog: int, mode: int) -> Listener:
    _remove_stale(address)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~mode)
    try:
        made.bind(address.path)
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(umask)
    made.setblocking(False)
    return Listener(address, made, _identity(address.path), open_to_all=False)


def _remove_stale(address: Address) -> None:
    """Remove a socket that nobody listens on. Whatever else is at the path stays."""
    try:
        mode = os.lstat(address.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"cannot bind {address.text}: something that is not a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # EAGAIN: somebody listens, with a full queue
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            Path(address.path).unlink()
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
    raise AddressError(f"cannot bind {address.text}: something listens there already")


def _tcp(address: Address, backlog: int) -> Listener:
    found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, number, _, where = found[0]
    made = socket.socket(family, kind, number)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        made.bind(where)
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return Listener(address, made)


def _inherited(address: Address, backlog: int) -> Listener:
    made = socket.socket(fileno=address.fd)
    if made.type != socket.SOCK_STREAM:
        raise AddressError(f"cannot bind {address.text}: not a stream socket")
    if not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        made.listen(backlog)
    if made.family in {socket.AF_INET, socket.AF_INET6}:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.set_inheritable(False)  # programs that the app starts shall not hold it
    made.setblocking(False)
    return Listener(address, made, open_to_all=_open_to_all(made))


def _open_to_all(made: socket.socket) -> bool:
    """Whether the mode of an inherited unix socket lets others in; a socket without a file has no mode, and does."""
    name = made.getsockname()
    if made.family != socket.AF_UNIX or not isinstance(name, str) or not name:
        return True
    try:
        return bool(Path(name).stat().st_mode & 0o002)
    except OSError:
        return True
