"""Debian's nginx as the package installs and starts it, on a machine of its own: port 80 is free, its files are copies.

The machine is a process with a network and mounts of its own, which takes root; whatever enters it sees /etc/nginx as
the package made it, default site and all, and may do there what an administrator would.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest

from .client import Answer, ask
from .project import STACKCTL, WITHIN, Project, lives, until

ETC = Path("/etc/nginx")
PAGE = Path("/var/www/html/index.nginx-debian.html")
OWN = (ETC, PAGE.parent, Path("/var/log/nginx"), Path("/var/lib/nginx"))
NETWORK = 0x40000000  # CLONE_NEWNET
# nginx.pid goes to /run, and stackctl's sockets stay where they are: everybody else looks for them there, too.
MOUNTS = """
for each in {own}; do mount --bind {place}$each $each; done
mount --bind /run/stackctl {place}/run
mount -t tmpfs none /run
mkdir /run/stackctl
mount --bind {place}/run /run/stackctl
exec {python} -c '{network}'
"""
# SIOCSIFFLAGS, IFF_UP: without iproute2, which need not be here. Then it lives until its standard input ends.
LOOPBACK = """
import fcntl, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh22x", b"lo", 1))
print("is up", flush=True)
sys.stdin.read()
"""
AS_DEBIAN_DOES = ("-g", "daemon on; master_process on;")


def skip_unless_possible() -> None:
    """Skip the test, and say why, where there can be no such machine."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own, in which port 80 is free, is root's to make: run the tests as root too")
    if not (ETC / "sites-enabled" / "default").exists():
        pytest.skip(f"there is no stock {ETC} to copy: apt install nginx")
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"root may not make namespaces here: {tried.stderr.strip()}")


class Debian:
    """The machine, from `with` to its end. The project's commands run in it."""

    def __init__(self, project: Project, layout: str) -> None:
        self._project = project
        self._place = project.place / "debian"
        for each in (*OWN[1:], Path("/run")):
            self._of(each).mkdir(parents=True)
        shutil.copytree(ETC, self._of(ETC), symlinks=True)
        shutil.copy(PAGE, self._of(PAGE))  # that alone: an Apache beside it puts a page there that comes first
        if layout == "conf.d":  # as nginx.org packages it: the default site is in there, and the other folders are not
            shutil.copy(ETC / "sites-available" / "default", self._of(ETC) / "conf.d" / "default.conf")
            for name in ("sites-available", "sites-enabled"):
                shutil.rmtree(self._of(ETC) / name)
        stackctl = self._place / "bin" / "stackctl"
        stackctl.parent.mkdir()
        stackctl.write_text(f'#!/bin/sh\nexec {" ".join(STACKCTL)} -C {project.directory} "$@"\n')
        stackctl.chmod(0o755)

    def _of(self, path: Path) -> Path:
        """Where its own file of that path is."""
        return self._place / path.relative_to("/")

    def run(self, *argv: str) -> str:
        """A command on the machine, which must succeed; what it says."""
        environment = {**self._project.environment, "PATH": f"{self._place}/bin:/usr/sbin:{os.environ['PATH']}"}
        done = subprocess.run(
            [*self._enter, *argv], env=environment, capture_output=True, text=True, timeout=WITHIN, check=False
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start_nginx(self) -> None:
        """As its unit does, which looks at the configuration first."""
        self.run("nginx", "-t", "-q", *AS_DEBIAN_DOES)
        self.run("nginx", *AS_DEBIAN_DOES)

    def stop_nginx(self) -> None:
        """Stop it, and wait until it is gone."""
        family = self.nginx()
        for each in family[:1]:
            each.terminate()
        until(lambda: not any(map(lives, family)), "its processes have ended")

    def nginx(self) -> list[psutil.Process]:
        """The master and its workers, if it runs."""
        try:
            master = psutil.Process(int(Path(f"/proc/{self._machine.pid}/root/run/nginx.pid").read_text()))
        except (FileNotFoundError, psutil.NoSuchProcess):
            return []
        return [master, *master.children()]

    def get(self, host: str, path: str = "/") -> Answer:
        """A visitor on the machine, for the site of this name. A thread can enter its network, and ends there."""

        def visit() -> Answer:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(f"/proc/{self._machine.pid}/ns/net").open() as network:
                if libc.setns(network.fileno(), NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            return ask(80, "GET", path, headers={"Host": host})

        with ThreadPoolExecutor(1) as visitor:
            return visitor.submit(visit).result()

    def __enter__(self) -> Self:
        Path("/run/stackctl").mkdir(mode=0o711, exist_ok=True)
        own = " ".join(map(str, OWN))
        script = MOUNTS.format(own=own, place=self._place, python=sys.executable, network=LOOPBACK)
        self._machine = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-euc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._machine.stdout
        assert self._machine.stdout.readline() == b"is up\n"
        self._enter = ("nsenter", "--target", str(self._machine.pid), "--net", "--mount")
        self._project.machine = self._machine.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_nginx()
        self._machine.communicate(timeout=WITHIN)  # its standard input ends
        self._project.machine = 0
