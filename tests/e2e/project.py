"""A copy of a project in a directory of its own, the command line in it, and whatever runs because of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from stack import config
from stack.errors import StackError
from stack.facts import runtime_dir
from stack.facts.nginx import find_nginx
from stack.operations import running
from stack.supervisor import control, place
from stack.supervisor.runner import children

from .client import Answer, ask
from .warm import Begun, warm

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "deploy" / "example"
APPS = ROOT / "tests" / "apps"
WITHIN = 30.0  # seconds: a deadline for what should take less than one
PATIENCE = 90.0  # seconds that a command may take
STACKCTL = (sys.executable, "-m", "stack")
STATIC = '[site.static]\n"/static" = "static"\n'  # the folder of the steered app, which is no Flask app to tell of it
# An app that does something in the server only: who just looks for the app does not come by stackctl's entry file.
IN_THE_SERVER = """
import os, sys, time

if "stackctl_entry" in sys.modules:
    {}

def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""

T = TypeVar("T")


def until(fact: Callable[[], T], what: str | Callable[[], str], within: float = WITHIN) -> T:
    """Poll until the fact is true. `what` is said if it is not, or called then to say it."""
    deadline, pause = time.monotonic() + within, 0.01
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(0.05, pause * 1.2)  # what takes long is looked at less: a look costs as much as what is waited for
    return found


def free_port() -> int:
    """A port below those that the kernel gives to clients, so that none of ours can take it meanwhile."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(WITHIN)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environment_of(pid: int) -> bytes:
    """What a process was started with, as long as it has not written over it."""
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as environment:  # noqa: PTH123 - see Project.processes
        return environment.read()


def lives(process: psutil.Process) -> bool:
    """Whether the process runs; one that is only not reaped yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Foreground:
    """A command that goes on, with its output in files."""

    def __init__(self, process: subprocess.Popen[bytes] | Begun, out: Path, err: Path) -> None:
        self.process = process
        self._out, self._err = out, err

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8", "replace")

    def says(self, text: str) -> None:
        """Wait until it has said this on one of the two."""

        def said() -> bool:
            if text in self.out or text in self.err:
                return True
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.err}\n{self.out}"
            return False

        until(said, f"it says {text!r}: {self.err}\n{self.out}")

    def wait(self) -> int:
        return self.process.wait(WITHIN)


class Project:
    """The project's copy. Every process that comes of a command in it carries a mark in its environment."""

    def __init__(self, source: Path | None, name: str = "site", under: str = "") -> None:
        self.place = Path(tempfile.mkdtemp(prefix="e-"))
        self.place.chmod(0o755)
        self.events = self.place / "events"
        self.events.mkdir()
        self.events.chmod(0o777)
        self.directory = self.place / under / name
        self.port = free_port()
        self.mark = f"e2e-{uuid.uuid4()}"
        self.command: tuple[str, ...] = STACKCTL
        self.machine = 0  # a process whose network and mounts the commands have, if it is not ours
        self.extra: dict[str, str] = {}  # more of an environment for the commands
        self.afresh = False  # whether each command starts a Python of its own
        self.runtime_dirs: set[str] = set()
        self._started: list[Foreground] = []
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        if source is None:
            self.directory.mkdir()
        else:
            shutil.copytree(source, self.directory, ignore=shutil.ignore_patterns(".stackctl", "__pycache__"))

    # Files.

    def write(self, path: str, text: str) -> Path:
        """A file of the project, newer by a second at least than what it was before.

        By second and size Python tells whether what it has compiled is of that source; a test writes twice in one.
        """
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.stat().st_mtime if file.exists() else 0.0
        file.write_text(text, "utf-8")
        if file.stat().st_mtime < before + 1.0:
            os.utime(file, (before + 1.0, before + 1.0))
        return file

    def wrapped_nginx(self, script: str) -> str:
        """A script in the project that can stand for nginx; `{nginx}` in it is the real one. Its path for `--nginx`."""
        found, looked = find_nginx(config.load(self.directory).config, self.environment)
        assert found is not None, looked
        self.write("nginx", f"#!/bin/sh\n{script.format(nginx=found.path)}\n").chmod(0o755)
        return "nginx"

    def event(self, name: str) -> Path:
        """A file by which the test tells the app to go on; not made yet."""
        return self.events / name

    @property
    def state(self) -> Path:
        return self.directory / ".stackctl"

    def log(self) -> str:
        return (self.state / "log" / "stack.log").read_text("utf-8", "replace")

    def rendered(self) -> dict[str, bytes]:
        """All that stackctl wrote for its programs to read."""
        apart = {"log", "__pycache__"}
        files = (each for each in self.state.rglob("*") if each.is_file() and not apart & {*each.parts})
        return {str(each.relative_to(self.state)): each.read_bytes() for each in files}

    def files(self) -> set[Path]:
        """All files below the project, without what Python compiles."""
        return {each for each in self.directory.rglob("*") if each.is_file() and each.suffix != ".pyc"}

    @property
    def runtime(self) -> Path:
        """The runtime directory, whether it is there or not."""
        return Path(runtime_dir(config.load(self.directory).config, self.environment))

    # Commands.

    @property
    def environment(self) -> dict[str, str]:
        ours = ("STACKCTL_", "FLASK", "VIRTUAL_ENV", "PYTHON", "NOTIFY_", "WATCHDOG_", "LISTEN_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "E2E_MARK": self.mark, **self.extra}

    @property
    def _may_be_warm(self) -> bool:
        ours = self.command[1:] in {("-m", "stack"), ("-P", "-m", "stack")}
        return ours and not self.extra and not self.afresh

    def run(
        self, *arguments: str, code: int | None = 0, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> Done:
        """A command to its end, in the project's directory. It must end with `code`, unless that is None.

        Ours runs warm, unless the environment that Python itself starts with matters.
        """
        argv, where = [*self.command, *arguments], cwd or self.directory
        environment = {**self.environment, **(env or {})}
        if self._may_be_warm:
            ended, out, err = warm().run(argv[1:], where, environment, PATIENCE, self.machine)
        else:
            done = subprocess.run(
                argv,
                cwd=where,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            ended, out, err = done.returncode, done.stdout, done.stderr
        found = Done(ended, out.decode(), err.decode())
        assert code in (None, found.code), f"{arguments} ended with {found.code}:\n{found.out}\n{found.err}"
        return found

    def up(self, *arguments: str, code: int | None = 0, **options: Any) -> Done:
        """`up -d` on the project's port."""
        return self.run("up", "-d", "--listen", self.address, *arguments, code=code, **options)

    def start(
        self,
        *arguments: str,
        before: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
        env: dict[str, str] | None = None,
    ) -> Foreground:
        """A command that goes on; warm, as in `run`, unless something comes before it."""
        number = len(self._started)
        out, err = self.place / f"{number}.out", self.place / f"{number}.err"
        environment = {**self.environment, **(env or {})}
        process: subprocess.Popen[bytes] | Begun
        with out.open("wb") as output, err.open("wb") as errors:
            if self._may_be_warm and not before and not pass_fds:
                outputs = (output.fileno(), errors.fileno())
                process = warm().start([*self.command[1:], *arguments], self.directory, environment, outputs)
            else:
                process = subprocess.Popen(
                    [*before, *self.command, *arguments],
                    cwd=self.directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    pass_fds=pass_fds,
                )
        started = Foreground(process, out, err)
        self._started.append(started)
        return started

    def status(self) -> Any:
        """What `status --json` prints, asked where that asks: tests look often."""
        return control.call(str(self.runtime), {"do": "status"}, WITHIN)["status"]

    def service(self, name: str) -> Any:
        """One service as `status` tells of it."""
        return next(each for each in self.status()["services"] if each["name"] == name)

    def pid(self, name: str) -> int:
        """The process of the generation of a service that serves."""
        serving = [each["pid"] for each in self.service(name)["generations"] if each["state"] == "serving"]
        assert len(serving) == 1
        pid: int = serving[0]
        return pid

    def workers(self, name: str) -> set[int]:
        """The children of that process; asked of it alone, as tests look often."""
        found = set()
        for pid in children(self.pid(name)):
            with contextlib.suppress(psutil.NoSuchProcess):
                if lives(psutil.Process(pid)):
                    found.add(pid)
        return found

    # The site.

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}/"

    def get(self, path: str, **headers: str) -> Answer:
        return ask(self.port, "GET", path, headers=headers)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        return ask(self.port, "POST", path, body, headers)

    def start_client(self, path: str) -> Callable[[], str]:
        """A GET that goes on beside the test; what is returned waits for its answer."""
        answers: list[str] = []
        visitor = threading.Thread(target=lambda: answers.append(self.get(path).text))
        visitor.start()

        def answer() -> str:
            visitor.join()
            return answers[0]

        return answer

    # What is left.

    def processes(self) -> list[psutil.Process]:
        """All that live and carry the mark, or work in the project (nginx writes its title over its environment)."""
        found, mark, place = [], self.mark.encode(), f"{self.place}/"
        for pid in psutil.pids():
            try:  # without pathlib, which takes a fifth of what a test takes of this process
                is_in = f"{os.readlink(f'/proc/{pid}/cwd')}/".replace(" (deleted)/", "/").startswith(place)  # noqa: PTH115
                if (is_in or mark in environment_of(pid)) and lives(process := psutil.Process(pid)):
                    found.append(process)
            except (OSError, psutil.Error):
                continue  # ended meanwhile, or another user's
        return found

    def nothing_is_left(self) -> None:
        """Wait until no process is left, and look that no runtime directory is."""
        while left := self.processes():
            until(lambda left=left: not any(map(lives, left)), f"{left} end")  # type: ignore[misc]
        assert not self.runtime.exists(), list(self.runtime.rglob("*"))

    def end(self) -> None:
        """`down`, which must leave nothing. What is left nevertheless is killed, and fails the test."""
        try:
            running.down(self.directory)  # what the command does, without a Python to start
            self.nothing_is_left()
            for each in self._started:
                each.wait()
        except BaseException:
            for process in self.processes():
                process.kill()
            raise
        finally:
            for each in self._started:
                each.process.wait(WITHIN)
            with contextlib.suppress(StackError, OSError):
                place.clear(str(self.runtime))
            shutil.rmtree(self.place, ignore_errors=True)
