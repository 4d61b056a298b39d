"""Real children: what they get, what they do not, and how their end is told."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stack.desired import Service
from stack.supervisor import runner, sockets
from stack.supervisor.__main__ import _keep_to_ourselves

ROOT = os.geteuid() == 0
WITHIN = 30.0  # seconds: a deadline for what should take milliseconds


@pytest.fixture(autouse=True)
def _nothing_inherited() -> None:
    """As the supervisor does when it starts: what runs the tests may have left descriptors to us."""
    _keep_to_ourselves()


only_root = pytest.mark.skipif(not ROOT, reason="only root can start a service as somebody else: run as root too")


def service(script: str = "", **fields: Any) -> Service:
    plain = Service("app", 0, (sys.executable, "-c", script), "/", link="/run/shop/sockets/app.sock")
    return dataclasses.replace(plain, **fields)


def said(wanted: Service, number: int = 1, listeners: dict[str, int] | None = None) -> tuple[str, str]:
    """What a service writes until it ends, and how it ends."""
    spawned = runner.spawn(wanted, number, listeners or {})
    os.set_blocking(spawned.output, True)
    with os.fdopen(spawned.output, encoding="utf-8") as stream:
        text = stream.read()
    return text, runner.ended(os.waitpid(spawned.pid, 0)[1])


def told(script: str, **fields: Any) -> Any:
    """What a script prints as JSON."""
    text, end = said(service(f"import json, os, signal, sys; print(json.dumps({script}))", **fields))
    assert end == "exit code 0", text
    return json.loads(text)


# What it gets.


def test_a_service_has_a_session_of_its_own() -> None:
    pid, session, group = told("[os.getpid(), os.getsid(0), os.getpgid(0)]")
    assert pid == session == group != os.getpid()


def test_a_service_has_three_descriptors_and_an_empty_stdin() -> None:
    number = "[int(each) for each in os.listdir('/proc/self/fd')]"
    # The fourth is that of the listing.
    assert told(f"[sorted({number}), sys.stdin.read()]") == [[0, 1, 2, 3], ""]


def test_only_who_is_in_no_hurry_lets_others_finish() -> None:
    assert told("os.sched_getscheduler(0)", is_batch=True) == os.SCHED_BATCH
    assert told("os.sched_getscheduler(0)") == os.SCHED_OTHER


CHOSEN = """
import os, sys
from stack.desired import Service
from stack.supervisor import runner
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
spawned = runner.spawn(Service("nginx", 1, (sys.executable, "-c", sys.argv[1]), "/", is_batch=True), 1, {})
os.waitpid(spawned.pid, 0)
print(os.read(spawned.output, 100).decode())
"""


def test_a_policy_that_somebody_has_chosen_stays() -> None:
    argv = [sys.executable, "-c", CHOSEN, "import os; print(os.sched_getscheduler(0))"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert int(done.stdout) == os.SCHED_IDLE


def test_listeners_follow_in_their_order_and_are_announced() -> None:
    with sockets.listen("127.0.0.1:0", 1) as one, sockets.listen("127.0.0.1:0", 1) as other:
        ports = {f"127.0.0.1:{each.getsockname()[1]}": each.fileno() for each in (one, other)}
        wanted = tuple(reversed(ports))
        script = """
import json, os, socket
numbers = os.environ["NGINX"]
opened = sorted(map(int, os.listdir("/proc/self/fd")))
names = ["%s:%d" % socket.socket(fileno=int(each)).getsockname() for each in numbers.split(";")[:-1]]
print(json.dumps([numbers, opened, names]))
"""
        text, end = said(service(script, listeners=wanted, listeners_variable="NGINX"), 1, ports)
    assert end == "exit code 0"
    assert json.loads(text) == ["3;4;", [0, 1, 2, 3, 4, 5], list(wanted)]


def test_stdout_and_stderr_are_one_stream() -> None:
    text, _ = said(service("import os; os.write(1, b'a'); os.write(2, b'b'); os.write(1, b'c')"))
    assert text == "abc"


def test_placeholders_are_filled() -> None:
    text, _ = said(service(argv=("/bin/echo", "{socket}", "pid.{generation}")), 7)
    assert text == "/run/shop/sockets/app.g7.sock pid.7\n"


def test_the_working_directory_is_the_services(tmp_path: Path) -> None:
    assert told("os.getcwd()", cwd=str(tmp_path)) == str(tmp_path)


def test_signals_are_as_a_fresh_program_expects_them() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        text, _ = said(service(argv=("/bin/cat", "/proc/self/status")))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    lines = (line.split(":") for line in text.splitlines() if line.startswith(("SigBlk", "SigIgn")))
    masks = {name: int(value, 16) for name, value in lines}
    assert masks["SigBlk"] == 0
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGXFSZ):
        assert not masks["SigIgn"] >> (number - 1) & 1, number.name


# Its environment.


def test_what_is_meant_for_us_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("STACKCTL_SERVER_WORKERS", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "NGINX", "WATCHDOG_USEC")
    theirs = ("NGINX_HOST", "LISTEN_ADDRESS", "WATCHDOG_URL", "HOME_PAGE")
    for name in (*ours, *theirs):
        monkeypatch.setenv(name, "x")
    found = told("dict(os.environ)")
    assert not set(ours) & set(found)
    assert set(theirs) <= set(found)


def test_the_env_file_covers_env_which_covers_what_is_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B", "C"):
        monkeypatch.setenv(name, "inherited")
    file = tmp_path / "secrets.env"
    file.write_text("# secrets\nC='from file'\nexport D=\"é $x\"\nNOTHING\n", "utf-8")
    found = told("dict(os.environ)", env={"B": "env", "C": "env"}, env_file=str(file))
    assert [found.get(name) for name in ("A", "B", "C", "D", "NOTHING")] == [
        "inherited",
        "env",
        "from file",
        "é $x",
        None,
    ]


def test_a_missing_env_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none.env"):
        runner.spawn(service(env_file=f"{tmp_path}/none.env"), 1, {})


def test_an_env_file_is_read_anew_by_each_generation(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    for value in ("one", "two"):
        file.write_text(f"TOKEN={value}\n")
        assert told("os.environ['TOKEN']", env_file=str(file)) == value


@only_root
def test_a_service_runs_as_its_user() -> None:
    entry = pwd.getpwnam("daemon")
    text, _ = said(service(argv=("/bin/sh", "-c", "id -u; id -g; id -G; echo $HOME; echo $USER"), user="daemon"))
    groups = " ".join(map(str, os.getgrouplist("daemon", entry.pw_gid)))
    assert text.splitlines() == [str(entry.pw_uid), str(entry.pw_gid), groups, entry.pw_dir, "daemon"]


# Its end.


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("", "exit code 0"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 15)", "SIGTERM"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL (the kernel, if memory ran out; or somebody)"),
        ("import os; os.kill(os.getpid(), 40)", "signal 40"),
    ],
)
def test_an_end_is_told_in_words(script: str, reason: str) -> None:
    assert said(service(script))[1] == reason


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"argv": ("/nowhere/python",)}, "/nowhere/python cannot be started: [Errno 2] No such file or directory"),
        ({"argv": ("/etc/passwd",)}, "/etc/passwd cannot be started: [Errno 13] Permission denied"),
        ({"cwd": "/nowhere"}, "cannot be started: [Errno 2] No such file or directory: '/nowhere'"),
        ({"user": "nobody-of-that-name"} if ROOT else {"cwd": "/nowhere"}, "cannot be started: "),
    ],
)
def test_what_cannot_be_started_says_why(fields: dict[str, Any], message: str) -> None:
    text, end = said(service(**fields))
    assert message in text
    assert end == "exit code 127"


@contextlib.contextmanager
def rendezvous() -> Iterator[tuple[str, socket.socket]]:
    """A unix socket that a child may call, in a directory short enough."""
    here = tempfile.TemporaryDirectory(prefix="runner-", dir="/tmp")
    with here as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/s")
        listener.listen()
        listener.settimeout(WITHIN)
        yield f"{directory}/s", listener


CALLER = """
import signal, socket, sys
line = socket.socket(socket.AF_UNIX)
def heard(number, frame):
    line.sendall(signal.Signals(number).name.encode())
    sys.exit()
signal.signal(signal.SIGUSR1, heard)
line.connect(sys.argv[1])
line.sendall(b"ready")
signal.pause()
"""
PARENT = """
import sys
from stack.desired import Service
from stack.supervisor import runner
runner.spawn(Service("app", 0, (sys.executable, "-c", sys.argv[2], sys.argv[1]), "/", orphan_signal="USR1"), 1, {})
sys.stdin.read()
"""


def test_a_service_hears_of_its_supervisors_death() -> None:
    with rendezvous() as (path, listener):
        parent = subprocess.Popen([sys.executable, "-c", PARENT, path, CALLER], stdin=subprocess.PIPE)
        try:
            line, _ = listener.accept()
            line.settimeout(WITHIN)
            with line:
                assert line.recv(100) == b"ready"
                parent.kill()
                assert line.recv(100) == b"SIGUSR1"
                assert line.recv(100) == b""
        finally:
            parent.kill()
            parent.communicate()


REAPER = """
import os, signal, sys
from stack.desired import Service
from stack.supervisor import runner
runner.adopt_orphans()
master = '''
import os, signal, sys
ready, go = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGQUIT, lambda *_: os._exit(7))
    os.write(go, b"x")
    signal.pause()
os.read(ready, 1)
os._exit(3)
'''
spawned = runner.spawn(Service("nginx", 1, (sys.executable, "-c", master), "/"), 1, {})
told, ends = [], []
def farewell(pid):
    told.append(pid)
    return "QUIT" if pid == spawned.pid else ""
while True:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        break
    ends += [each.reason for each in runner.reap(farewell)]
assert told[0] == spawned.pid
print(ends)
"""


def test_what_a_dead_master_leaves_behind_is_told_to_end_and_is_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", REAPER], capture_output=True, text=True, timeout=WITHIN, check=True)
    assert done.stdout == "['exit code 3', 'exit code 7']\n"


def test_a_signal_to_who_has_gone_is_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    runner.tell(process.pid, "TERM")
    runner.tell_group(process.pid, "KILL")


def test_a_signal_by_name_reaches_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        runner.tell(process.pid, "KILL")
        assert process.wait(WITHIN) == -signal.SIGKILL


def test_a_failed_fork_leaves_no_descriptor_behind() -> None:
    script = """
import os, resource, sys
from stack.desired import Service
from stack.supervisor import runner
before = os.listdir("/proc/self/fd")
try:
    runner.spawn(Service("app", 0, ("/bin/true",), "/", env_file="/nowhere"), 1, {})
except OSError:
    pass
assert os.listdir("/proc/self/fd") == before
"""
    subprocess.run([sys.executable, "-c", script], timeout=WITHIN, check=True)


def test_generations_have_sockets_of_their_own() -> None:
    assert runner.generation_socket(service(), 12) == "/run/shop/sockets/app.g12.sock"
    assert runner.generation_control(service(), 12) == "/run/shop/sockets/app.g12.control"


def test_a_fifo_of_its_own_is_filled_in() -> None:
    text, _ = said(service(argv=("/bin/echo", "{control}")), 7)
    assert text == "/run/shop/sockets/app.g7.control\n"


# Its fifo.


@pytest.fixture
def with_fifo(tmp_path: Path) -> Service:
    """A service that has made its fifo."""
    made = service(link=f"{tmp_path}/app.uwsgi.sock", stop_word="q")
    os.mkfifo(runner.generation_control(made, 1))
    return made


def test_the_word_is_written_to_who_reads_the_fifo(with_fifo: Service) -> None:
    reading = os.open(runner.generation_control(with_fifo, 1), os.O_RDONLY | os.O_NONBLOCK)
    assert runner.write_word(with_fifo, 1)
    assert os.read(reading, 100) == b"q"
    os.close(reading)


def test_nobody_reads_the_word(with_fifo: Service) -> None:
    assert not runner.write_word(with_fifo, 1), "nobody has opened it"
    assert not runner.write_word(with_fifo, 2), "there is none"


def test_a_service_without_a_word_is_written_none(with_fifo: Service) -> None:
    reading = os.open(runner.generation_control(with_fifo, 1), os.O_RDONLY | os.O_NONBLOCK)
    assert not runner.write_word(dataclasses.replace(with_fifo, stop_word=""), 1)
    assert os.read(reading, 100) == b""
    os.close(reading)


def test_what_is_no_fifo_is_not_written_to(with_fifo: Service, tmp_path: Path) -> None:
    fifo, elsewhere = Path(runner.generation_control(with_fifo, 1)), tmp_path / "elsewhere"
    fifo.rename(elsewhere)
    reading = os.open(elsewhere, os.O_RDONLY | os.O_NONBLOCK)
    fifo.symlink_to(elsewhere)
    assert not runner.write_word(with_fifo, 1), "a link"
    assert os.read(reading, 100) == b""
    os.close(reading)
    fifo.unlink()
    fifo.write_text("precious")
    assert not runner.write_word(with_fifo, 1), "a file"
    assert fifo.read_text() == "precious"


def test_the_files_of_a_generation_are_removed_and_no_others(with_fifo: Service, tmp_path: Path) -> None:
    for name in ("app.g1.sock", "app.g2.sock", "app.g2.control"):
        (tmp_path / name).touch()
    runner.remove_files(with_fifo, 1)
    runner.remove_files(with_fifo, 3)
    assert {each.name for each in tmp_path.iterdir()} == {"app.g2.sock", "app.g2.control"}


def test_who_has_a_socket_open() -> None:
    with socket.socket() as one, socket.socket() as other:
        inode = os.fstat(one.fileno()).st_ino
        assert runner.has_open(os.getpid(), {inode})
        one.close()
        assert not runner.has_open(os.getpid(), {inode})
        assert runner.has_open(os.getpid(), {inode, os.fstat(other.fileno()).st_ino})
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not runner.has_open(process.pid, {inode})


# Who is connected to it.

TABLE = b"""\
Num       RefCount Protocol Flags    Type St Inode Path
000000003d19c2ee: 00000002 00000000 00010000 0001 01 13402765 /run/my shop/app.g1.sock
0000000024e7015d: 00000003 00000000 00000000 0001 03 13408295 /run/my shop/app.g1.sock
000000000829bd5e: 00000002 00000000 00000000 0001 02     0 /run/my shop/app.g1.sock
00000000eac4c455: 00000003 00000000 00000000 0001 03 13408272
000000003d19c2ef: 00000002 00000000 00010000 0001 01 13402766 /run/my shop/app.g11.sock
"""


@pytest.mark.parametrize(("number", "count"), [(1, 2), (11, 0), (2, 0)])
def test_connections_are_those_of_the_listener_without_itself(number: int, count: int) -> None:
    assert runner.connections(TABLE, f"/run/my shop/app.g{number}.sock") == count


def test_who_is_connected_or_waits_to_be_is_seen(tmp_path: Path) -> None:
    made = service(link=f"{tmp_path}/é app.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as visitor:
        listener.bind(runner.generation_socket(made, 1))
        listener.listen()
        assert not runner.is_connected(made, 1)
        visitor.connect(runner.generation_socket(made, 1))
        assert runner.is_connected(made, 1), "it waits"
        Path(runner.generation_socket(made, 1)).unlink()
        accepted, _ = listener.accept()
        visitor.close()
        assert runner.is_connected(made, 1), "it is the server's to close"
        accepted.close()
        assert not runner.is_connected(made, 1)
