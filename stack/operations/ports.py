"""The public addresses: taken or free, and by whom. Nothing is ever done to who holds one."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import socket
from collections.abc import Iterable, MutableMapping
from pathlib import Path

import psutil

from stack.desired import Plan
from stack.errors import ConfigError, StackError
from stack.supervisor import sockets

__all__ = ["free", "given", "holder", "listening", "place_of", "socket_owner", "taken_over"]

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - who listens there holds the port of every address
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
LISTENS = "0A"  # TCP_LISTEN in /proc/net/tcp
# The control groups in which Docker, containerd, CRI-O and Podman put a container, with and without systemd.
CONTAINER = re.compile(r"(docker|cri-containerd|crio|libpod)?-?([0-9a-f]{64})(?:\.scope)?")
OF_A_USER = re.compile(r"/user@[0-9]+\.service/")  # that user's own systemd is below it, with its units
RUNTIMES = {"cri-containerd": "containerd", "crio": "CRI-O", "libpod": "podman"}


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
            who, look = holder(address)
            hint = "\n".join(each for each in (f"A free port: --listen {free(address)}", look) if each)
            raise StackError(f"cannot listen on {address}: {who}", hint) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ConfigError(
                f"cannot listen on {address}: ports below {_first_of_all()} are root's",
                f"Use another one (--listen {free(address)}), start as root, or once, as root, give the right to all:\n"
                f"sysctl -w net.ipv4.ip_unprivileged_port_start={port}\n"
                "or to this stack alone, in its unit of systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE",
            ) from None
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror}", "`ip address` shows the addresses of this machine."
        ) from None


def given(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that a socket unit of systemd opened for us.

    Raises:
        StackError: something else was passed to us.
    """
    try:
        return sockets.inherited(environ)
    except OSError as error:
        raise StackError(
            f"LISTEN_FDS announces sockets, but not all of its descriptors are some: {error.strerror}",
            "Whoever starts stackctl passes them from descriptor 3 on; see sd_listen_fds(3).",
        ) from error


def taken_over(given: Iterable[socket.socket], plan: Plan) -> dict[str, socket.socket]:
    """Those sockets by the addresses of the plan: all of them must be of use.

    Raises:
        ConfigError: one listens where the plan does not.
    """
    by_address = {sockets.address(each): each for each in given}
    wanted = [each.address for each in plan.listeners]
    for address in by_address:
        if address not in wanted:
            there = " and ".join(wanted) or "no address of its own: the web server that faces the clients is not ours"
            raise ConfigError(
                f"the socket unit passes {address}, but the stack listens on {there}",
                "Make them say the same: ListenStream= in the .socket unit, [site] listen in stack.toml.\n"
                "`stackctl systemd-unit --socket` prints a unit that does. ListenStream=PORT alone means [::]:PORT.",
            )
    return by_address


def holder(address: str) -> tuple[str, str]:
    """Who listens where we cannot, as far as we may see; and how to see more, or where it belongs to."""
    host, _, text = address.rpartition(":")
    port = int(text)
    found = _listeners(host.strip("[]"), port)
    if not found:
        return "another process has it", ""
    pids = {each for each in found if each is not None}
    if not pids:
        user = socket_owner(port, _tables())
        whose = "another user's process" + (f" ({user})" if user else "")
        return f"{whose} has it", f"`sudo ss -ltnp 'sport = :{port}'` shows which."
    try:
        process = psutil.Process(_eldest(pids))
        with process.oneshot():
            command = " ".join(process.cmdline())[:100] or process.name()
            where = place_of(_text(Path(f"/proc/{process.pid}/cgroup")))
            user = process.username()
    except psutil.Error:
        return "a process has it that has ended by now", "Try again."
    owner = user if process.uids().real != os.getuid() else ""
    more = "".join(f", {each}" for each in (where, f"user {owner}" if owner else "") if each)
    return f"pid {process.pid} has it ({command}){more}", _look(process.name(), where, port, owner)


def place_of(cgroup: str) -> str:
    """The systemd unit or the container that a process belongs to, from its /proc/PID/cgroup; "" if to neither."""
    for line in sorted(cgroup.splitlines()):  # the unified hierarchy, 0, first
        for part in reversed(line.split(":", 2)[-1].split("/")):
            if container := CONTAINER.fullmatch(part):
                runtime = container[1] or ("docker" if "docker" in line else "")
                return f"{RUNTIMES.get(runtime, runtime) or 'a'} container {container[2][:12]}"
            if part.endswith(".service"):
                return f"systemd {'user ' if OF_A_USER.search(line) else ''}unit {part}"
            if part.endswith(".scope"):
                break  # a session, or an app in one: the service further up is only who opened it
    return ""


def socket_owner(port: int, tables: Iterable[str]) -> str:
    """The user who listens on a port, from the texts of /proc/net/tcp and tcp6; "" if nobody seems to."""
    for table in tables:
        for line in table.splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                with contextlib.suppress(KeyError):
                    return pwd.getpwuid(int(words[7])).pw_name
                return f"uid {words[7]}"
    return ""


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


def _listeners(host: str, port: int) -> list[int | None]:
    """The pids of those who listen on the port of this address or of all; None for one whom we may not see."""
    try:
        found = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN and each.laddr]
    except psutil.Error:
        return []
    there = [each for each in found if each.laddr.port == port]  # type: ignore[union-attr]
    same = {host, *EVERYWHERE}
    return [each.pid for each in there if host in EVERYWHERE or each.laddr.ip in same]  # type: ignore[union-attr]


def _eldest(pids: set[int]) -> int:
    """Of a process and the children that share its socket: the process."""
    for pid in sorted(pids):
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).ppid() not in pids:
                return pid
    return min(pids)


def _look(name: str, where: str, port: int, owner: str) -> str:
    """How to see more; `owner` is the user whose process it is, "" if it is ours."""
    if name == "docker-proxy":
        return f"It forwards to a container: `docker ps --filter publish={port}` shows which."
    match where.split():
        case ["systemd", "unit", unit]:
            return f"`systemctl status {unit}` shows what it is."
        case ["systemd", "user", "unit", unit]:
            whose = f"--user --machine={owner}@" if owner else "--user"
            return f"`systemctl {whose} status {unit}` shows what it is."
        case ["docker" | "podman" as program, "container", container]:
            return f"`{program} ps --filter id={container}` shows what it is."
    return "`systemctl list-sockets` shows for which unit." if name == "systemd" else ""


def _first_of_all() -> str:
    return _text(UNPRIVILEGED).strip() or "1024"


def _tables() -> list[str]:
    return [_text(Path(f"/proc/net/{each}")) for each in ("tcp", "tcp6")]


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
