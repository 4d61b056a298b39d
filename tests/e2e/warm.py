"""The command line, imported once: each command runs in a fork of a process that has all its modules already.

What a command costs is mostly the import of its modules, half a second of a processor for a tenth of work, and the
tests give hundreds of them. It is the same code, with arguments, environment, directory and descriptors of its own, and
a process of its own that ends for itself. What differs is how it begins; so whatever is about that starts one afresh.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

MOST = 200_000  # bytes of a request: arguments and environment


class Warm:
    """The process that has imported everything, and what it is asked."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:  # it ends when ours is closed, however we end
            argv = [sys.executable, "-P", __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(argv, env=environment, pass_fds=[theirs.fileno()])

    def run(
        self, words: Sequence[str], directory: Path, environment: Mapping[str, str], patience: float, machine: int = 0
    ) -> tuple[int, bytes, bytes]:
        """`python -m stack` with these words, to its end: exit code, output, talk.

        `machine` is a process whose network and mounts it gets, if it is not to have ours.
        """
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        begun = self.start(words, directory, environment, (out_end, err_end), machine)
        for each in (out_end, err_end):
            os.close(each)
        said = _read(out, err, words, patience)
        return begun.wait(patience), *said

    def start(
        self,
        words: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        outputs: tuple[int, int],
        machine: int = 0,
    ) -> Begun:
        """The same beside us, which writes to these two descriptors."""
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = json.dumps([list(words), str(directory), dict(environment), machine]).encode()
        with theirs, Path(os.devnull).open("rb") as nothing:
            socket.send_fds(self._requests, [asked], [theirs.fileno(), nothing.fileno(), *outputs])
        return Begun(reply)


class Begun:
    """A command in its fork, with what a test needs of a `subprocess.Popen`."""

    def __init__(self, reply: socket.socket) -> None:
        self._reply = reply
        self.pid = int(reply.recv(16))
        self.returncode: int | None = None

    def wait(self, within: float | None = None) -> int:
        """The exit code, once it has ended."""
        if self.returncode is None:
            self._reply.settimeout(within)
            with self._reply:
                self.returncode = int(self._reply.recv(16))
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None and select.select([self._reply], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _read(out: int, err: int, words: Sequence[str], patience: float) -> tuple[bytes, bytes]:
    """All that comes through both, until nobody is left to write."""
    parts: dict[int, list[bytes]] = {out: [], err: []}
    with selectors.DefaultSelector() as selector:
        for each in parts:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(patience)
            assert ready, f"{words} says nothing more: {parts}"
            for key, _ in ready:
                if part := os.read(key.fd, 1 << 16):
                    parts[key.fd].append(part)
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return b"".join(parts[out]), b"".join(parts[err])


@cache
def warm() -> Warm:
    """The one of this process, made when it is first asked for."""
    strange = ("STACKCTL_", "FLASK", "VIRTUAL_ENV", "PYTHON")
    return Warm({name: value for name, value in os.environ.items() if not name.startswith(strange)})


# What follows runs in the other process.


def serve(requests: socket.socket) -> None:
    """A fork for every request, until nobody can ask any more."""
    import stack
    from stack import render

    for each in pkgutil.walk_packages(stack.__path__, "stack."):
        if not each.name.endswith("__main__") and not each.name.startswith(("stack.wsgi", "stack.facts.discover")):
            importlib.import_module(each.name)
    render.load("")
    gc.freeze()  # nothing of it is looked at again in the forks
    running: dict[int, socket.socket] = {}

    def tell(*_: object) -> None:
        """The exit code of each that has ended, to whom waits for it."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                with running.pop(pid) as reply:
                    reply.send(str(os.waitstatus_to_exitcode(status)).encode())

    signal.signal(signal.SIGCHLD, tell)
    while True:
        asked, fds, _, _ = socket.recv_fds(requests, MOST, 4)
        if not asked:
            return
        words, directory, environment, machine = json.loads(asked)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # until it is known whose end that is
        reply = socket.socket(fileno=fds[0])
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            for held in (requests, reply, *running.values()):
                held.close()
            run(words, directory, environment, fds[1:], machine)
        running[pid] = reply
        reply.send(str(pid).encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for fd in fds[1:]:
            os.close(fd)


def enter(machine: int) -> None:
    """As `nsenter` does, which would have to start a Python afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as opened:
        spaces = [opened.enter_context(Path(f"/proc/{machine}/ns/{name}").open()) for name in ("net", "mnt")]
        for each in spaces:
            if libc.setns(each.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")


def run(words: list[str], directory: str, environment: dict[str, str], fds: list[int], machine: int) -> NoReturn:
    """The command, in its fork."""
    if machine:
        enter(machine)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    if "-P" not in words:
        sys.path[:0] = [directory]
    sys.argv = ["stack", *words[words.index("stack") + 1 :]]
    code: object = 0
    try:
        runpy.run_module("stack", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - as Python does
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        serve(ours)
