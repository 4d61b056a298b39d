"""The logs of a stack that serves: rotated, opened again, on a disk that is full, in a place that is not ours alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from .conftest import Copy
from .fault import fault
from .installed import python_for_everybody
from .project import APPS, STACKCTL, Project, until

pytestmark = pytest.mark.e2e
ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="file systems and other users are needed: run the tests as root too")


def said(log: Path) -> list[str]:
    """What the app was asked to say, from the oldest file to the newest."""
    files = sorted(log.parent.glob(log.name + "*"), key=lambda each: (len(each.name), each.name), reverse=True)
    lines = [line for each in files for line in each.read_text().splitlines()]
    return [line.rpartition(" said ")[2] for line in lines if " said " in line]


def asked(directory: Path, start: str) -> list[str]:
    """The paths in all access logs that start so, in no order: nginx's workers write each for itself."""
    lines = [line for each in directory.glob("access.log*") for line in each.read_text().splitlines()]
    return sorted(line.split()[6] for line in lines if f'"GET {start}' in line)


def say(project: Project, words: list[str]) -> None:
    for each in words:
        assert project.get(f"/say/{each}").status == 200


def numbered(start: int, end: int) -> list[str]:
    return [f"n{each:03}" for each in range(start, end)]


@pytest.mark.parametrize("kind", ["ours", pytest.param("another user's", marks=only_root)])
def test_logs_are_set_aside_by_size_and_no_line_is_lost(copy: Copy, kind: str) -> None:
    """nginx's workers may be another user's than those who own the directory: they must get at the new file, too."""
    project = copy(APPS / "steered")
    flags = ["--set", "logs.size=2k", "--set", "logs.keep=50"]
    if kind != "ours":
        python = python_for_everybody()
        if not python:
            pytest.skip("there is no Python 3.11 here that every user may run")
        project.write("app.py", (APPS / "wsgi_plain.py").read_text().replace("application", "app"))
        flags += ["--set", f"app.python={python}", "--set", "app.user=www-data"]
    project.up(*flags)
    logs = project.state / "log"
    words: list[str] = []

    def reaches(name: str) -> bool:
        """A request more, and whether there is one in this file."""
        words.append(f"n{len(words):04}")
        assert project.get(f"/say/{words[-1]}").status == 200
        return (logs / name).exists() and "/say/" in (logs / name).read_text()

    until(lambda: reaches("access.log.1"), "nginx's log is set aside while it serves")
    until(lambda: reaches("access.log"), "it goes on in a new one")
    if kind == "ours":
        until(lambda: reaches("access.log") and (logs / "stack.log.1").exists(), "the app has said as much")
    until(lambda: asked(logs, "/say/") == [f"/say/{each}" for each in words], "every request is in one of the files")
    if kind == "ours":
        until(lambda: said(logs / "stack.log") == words, "so is every line of the app")
        assert 2048 <= (logs / "stack.log.1").stat().st_size < 4096
        shown = project.run("logs", "app", "-n", str(len(words))).out.splitlines()
        assert [line.rpartition(" said ")[2] for line in shown] == words


def test_logs_that_logrotate_moves_are_opened_again_on_sigusr1(steered: Project) -> None:
    steered.up("--set", "logs.size=0", "--set", "logs.format=json")
    logs = steered.state / "log"
    say(steered, ["before"])
    for name in ("stack.log", "access.log"):
        (logs / name).rename(logs / f"{name}-moved")
    os.kill(steered.status()["pid"], signal.SIGUSR1)
    until(lambda: (logs / "stack.log").exists() and (logs / "access.log").exists(), "both are there again")

    def is_in(name: str, path: str) -> bool:
        assert steered.get(path).status == 200
        return path.rpartition("/")[2] in (logs / name).read_text()

    until(lambda: is_in("stack.log", "/say/after"), "the app's lines are in the new file")
    until(lambda: is_in("access.log", "/say/after"), "so are the requests")
    assert "before" in (logs / "stack.log-moved").read_text()
    assert "before" in (logs / "access.log-moved").read_text()
    for name in ("stack.log", "access.log"):
        for line in (logs / name).read_text().splitlines():
            assert list(json.loads(line)) == ["time", "service", "pid", "text"]
    access = json.loads((logs / "access.log").read_text().splitlines()[-1])
    assert access["service"] == "access"
    assert access["pid"] in steered.workers("nginx")
    assert '"GET /say/after HTTP/1.1" 200' in access["text"]
    assert '"GET /say/after HTTP/1.1" 200' in steered.run("logs", "access", "-n", "1").out.split(" - ", 1)[1]
    assert steered.run("diff").out == ""


# A full disk.


@only_root
@fault("disk full")
def test_full_disk_stops_no_request_and_logging_recovers(steered: Project) -> str:
    logs = steered.state / "log"
    logs.mkdir(parents=True, mode=0o700)
    mount = f'mount -t tmpfs -o size=1m,mode=0700 none {logs} && exec "$@"'
    steered.command = ("unshare", "--mount", "sh", "-c", mount, "sh", *STACKCTL)
    steered.up()
    steered.command = STACKCTL
    supervisor = steered.status()["pid"]
    there = Path(f"/proc/{supervisor}/root{logs}")
    say(steered, ["before"])
    with (there / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        [filler.write(bytes(1024)) for _ in range(2048)]
    words = numbered(0, 200)
    assert [steered.get(f"/say/{each}").status for each in words] == [200] * 200
    assert len(said(there / "stack.log")) < 200
    (there / "filler").unlink()

    def recovers() -> bool:
        say(steered, ["after"])
        return "after" in said(there / "stack.log") and "/say/after" in asked(there, "/say/after")

    until(recovers, "both logs go on")
    text = (there / "stack.log").read_text()
    news = [line.partition("] ")[2] for line in text.splitlines() if " lost: " in line]
    assert news
    assert all(each.endswith(" lost: No space left on device") for each in news)
    kept = [line.rpartition(" ")[2] for line in text.splitlines() if " said n" in line]
    assert kept == [each for each in words if each in kept]
    assert sum(int(each.split()[0]) for each in news) >= 200 - len(kept) > 0
    assert all(line.startswith("20") and "] " in line for line in text.splitlines())
    return "200 of 200 requests answered; lost lines are counted in the log"


# What others may have put there.


@only_root
@fault("planted links")
def test_stack_is_not_started_where_others_could_have_put_its_logs_or_sockets(steered: Project) -> str:
    victim = steered.write("victim", "precious")
    shared = steered.place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    flags = ("--set", f"stack.state_dir={shared}/state")
    (shared / "state").mkdir()
    (shared / "state" / "log").mkdir(mode=0o700)
    for name in ("stack.log", "access.log"):
        link = shared / "state" / "log" / name
        link.symlink_to(victim)
        assert f"{link} is not a file" in steered.up(*flags, code=1).err
        link.unlink()
    shutil.chown(shared / "state" / "log", "daemon")
    assert f"{shared}/state/log belongs to another user" in steered.up(*flags, code=1).err
    assert f"others may write to {shared}" in steered.up("--set", f"stack.state_dir={shared}", code=1).err

    run = ("--set", f"stack.runtime_dir={shared}/run")
    (shared / "run").symlink_to(steered.place)
    os.chown(shared / "run", 1, 1, follow_symlinks=False)
    assert "belongs to another user" in steered.up(*run, code=1).err
    (shared / "run").unlink()
    (shared / "run").mkdir()
    shutil.chown(shared / "run", "daemon")
    assert "belongs to another user" in steered.up(*run, code=1).err
    for name in ("nginx.g1.pid", "control.sock", "lock", "sockets"):
        (shared / name).symlink_to(victim)
    assert f"everybody may write to {shared}" in steered.up("--set", f"stack.runtime_dir={shared}", code=1).err
    assert victim.read_text() == "precious"
    assert steered.processes() == []
    return "refused"


BYSTANDER = """
import os, signal, sys
asked = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
signal.pthread_sigmask(signal.SIG_BLOCK, asked)
print("ready", flush=True)
print(signal.Signals(signal.sigwait(asked)).name, flush=True)
"""


@contextmanager
def bystander() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that has nothing to do with it, and says which signal it got; the test ends it with SIGUSR2."""
    heard: list[str] = []
    with subprocess.Popen([sys.executable, "-c", BYSTANDER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process, heard
            process.send_signal(signal.SIGUSR2)
            heard.append(process.stdout.readline().strip())
        finally:
            process.kill()


@fault("planted links")
def test_process_that_a_stale_file_names_is_never_signalled(steered: Project) -> str:
    """The pid in the lock and in nginx's pid files is somebody else's by now."""
    with bystander() as (process, heard):
        steered.up()
        runtime = steered.runtime
        os.kill(steered.status()["pid"], signal.SIGKILL)
        until(lambda: not steered.processes(), "the stack was killed, and left its files")
        (runtime / "lock").write_text(json.dumps({"pid": process.pid, "since": 1.0}))
        for number in (1, 2):
            (runtime / f"nginx.g{number}.pid").write_text(f"{process.pid}\n")
        with socket.socket(socket.AF_UNIX) as nobody:  # a control socket at which nobody answers
            (runtime / "control.sock").unlink(missing_ok=True)
            nobody.bind(str(runtime / "control.sock"))
        (runtime / "plan.json").touch()
        steered.run("down")
        runtime.mkdir(exist_ok=True)
        (runtime / "lock").write_text(json.dumps({"pid": process.pid, "since": 1.0}))
        for number in (1, 2):
            (runtime / f"nginx.g{number}.pid").write_text(f"{process.pid}\n")
        steered.up("--set", "logs.size=1k")
        assert steered.get("/").text == "1"
        os.kill(steered.status()["pid"], signal.SIGUSR1)
        steered.write("version.txt", "2")
        steered.run("reload")
        until(lambda: steered.get("/").text == "2", "the new code answers")
        steered.run("down")
        assert psutil.pid_exists(process.pid)
    assert heard == ["SIGUSR2"]
    return "no stranger is signalled"
