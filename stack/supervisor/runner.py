"""Forks, signals, reaps. The only place that does; what to do to which process is decided elsewhere.

A service gets a session of its own (a Ctrl-C in the terminal reaches the supervisor alone), no descriptor but 0-2 and
the listeners that it is promised, and a signal from the kernel should the supervisor die (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.desired import Service
from stack.supervisor import notify, sockets

__all__ = [
    "Ended",
    "Spawned",
    "adopt_orphans",
    "children",
    "connections",
    "end_with",
    "ended",
    "generation_control",
    "generation_socket",
    "generation_tally",
    "has_open",
    "is_connected",
    "is_stopped",
    "reap",
    "remove_files",
    "remove_socket",
    "spawn",
    "tell",
    "tell_group",
    "write_word",
]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SO_ACCEPTCON = 0x10000  # linux/net.h
# Ours, and those with which uWSGI and gunicorn may be told something else than their files say.
NOT_HANDED_ON = ("STACKCTL_", "UWSGI_", "GUNICORN_")
# systemd's and nginx's words to the process that they start: meant for us, not for a service.
PRIVATE = {*notify.WORDS, *sockets.ANNOUNCED_IN, "NGINX"}

OURS = (
    *(signal.SIGPIPE, signal.SIGXFSZ),  # ignored by Python
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1),
)
"""The signals that mean to the supervisor what they do not mean to a service."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process, and the end of the pipe from which its stdout and stderr are read."""

    pid: int
    output: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that is gone, and how it went, in words."""

    pid: int
    reason: str


def adopt_orphans() -> None:
    """Processes whose parent died become ours: nginx's workers outlive a killed master and would keep its port."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with(parent: int) -> None:
    """Asks the kernel to stop us when our parent ends; if it has ended already, we stop now."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def generation_socket(service: Service, number: int) -> str:
    """The path of the socket of a service's own generation: `app.g7.sock` beside the link `app.http.sock`."""
    return str(Path(service.link).with_name(f"{service.name}.g{number}.sock"))


def generation_control(service: Service, number: int) -> str:
    """Where a generation may make a fifo or socket to be told things, or to tell them: `app.g7.control`."""
    return str(Path(service.link).with_name(f"{service.name}.g{number}.control"))


def generation_tally(service: Service, number: int) -> str:
    """The file in which a generation's workers may tell what they do: `app.g7.tally`."""
    return str(Path(service.link).with_name(f"{service.name}.g{number}.tally"))


def remove_files(service: Service, number: int) -> None:
    """Removes a generation's sockets, fifo and tally, which not every app server does, and none that was killed."""
    if service.link:
        remove_socket(service, number)
        Path(generation_control(service, number)).unlink(missing_ok=True)
        Path(generation_tally(service, number)).unlink(missing_ok=True)


def remove_socket(service: Service, number: int) -> None:
    """Nobody can connect to a generation any more; who waits to be served is served."""
    Path(generation_socket(service, number)).unlink(missing_ok=True)


def spawn(service: Service, number: int, listeners: Mapping[str, int]) -> Spawned:
    """Starts generation `number` of a service. `listeners` are the public sockets' descriptors by address.

    Raises:
        OSError: no process or pipe can be made, or the env file cannot be read.
    """
    argv = [_filled(each, service, number) for each in service.argv]
    handed = [listeners[address] for address in service.listeners]
    environment = _environment(service)
    if service.tally_variable:
        environment[service.tally_variable] = generation_tally(service, number)
    if service.listeners_variable:
        environment[service.listeners_variable] = "".join(f"{3 + index};" for index in range(len(handed)))
    parent = os.getpid()
    reading, writing = os.pipe()
    # No signal may reach a handler of ours in the child: it would write into the supervisor's own wake-up pipe.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(service, argv, environment, handed, writing, parent)
    except OSError:
        os.close(reading)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
    os.set_blocking(reading, False)
    return Spawned(pid, reading)


def reap(farewell: Callable[[int], str]) -> Iterator[Ended]:
    """Every child that has ended, adopted ones too.

    What a process leaves behind in its group (nginx's workers outlive their master) gets the signal that `farewell`
    names for its pid, if it names one; before the process is reaped, while the group's number cannot be anybody else's.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        if name := farewell(found.si_pid):
            tell_group(found.si_pid, name)
        _, status = os.waitpid(found.si_pid, 0)
        yield Ended(found.si_pid, ended(status))


def ended(status: int) -> str:
    """A wait status in words."""
    if not os.WIFSIGNALED(status):
        return f"exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"  # a real-time one
    return f"{name} (the kernel, if memory ran out; or somebody)" if number == signal.SIGKILL else name


def children(pid: int) -> set[int]:
    """The process ids of a process's own children (proc(5), /proc/PID/task/TID/children)."""
    try:
        return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()}
    except OSError:
        return set()


def is_stopped(pid: int) -> bool:
    """Whether a signal such as SIGSTOP has stopped a process; what a debugger holds is something else (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def has_open(pid: int, sockets: set[int]) -> bool:
    """Whether a process has one of these sockets, told by their inodes; not, if it is gone (proc(5), /proc/PID/fd)."""
    names = {f"socket:[{each}]" for each in sockets}
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if str(descriptor.readlink()) in names:
                    return True
    return False


def is_connected(service: Service, number: int) -> bool:
    """Whether somebody is connected to a generation's own socket, or waits to be; no, if the kernel does not tell."""
    try:
        return connections(Path("/proc/net/unix").read_bytes(), generation_socket(service, number)) > 0
    except OSError:
        return False


def connections(table: bytes, path: str) -> int:
    """How many connections lead to the unix socket that was bound to `path`, in the words of /proc/net/unix.

    The kernel lists those that are accepted and those that still wait, by the path of who listens; that one is told by
    its flags (__SO_ACCEPTCON).
    """
    rows = (line.split(None, 7) for line in table.splitlines())
    found = [row for row in rows if len(row) == 8 and row[7] == os.fsencode(path)]
    return sum(not int(flags, 16) & SO_ACCEPTCON for _, _, _, flags, *_ in found)


def tell(pid: int, name: str) -> None:
    """Sends a signal, named without SIG, to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.Signals[f"SIG{name}"])


def write_word(service: Service, number: int) -> bool:
    """Writes the word that asks a generation to stop into its fifo; whether somebody was there to read it.

    Its tally is taken from the disk: so its workers see it, too, if it does not tell all of them.
    """
    if not service.stop_word:
        return False
    try:
        fifo = os.open(generation_control(service, number), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # not made yet, or no more
    try:
        if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
            return False
        os.write(fifo, service.stop_word.encode())
    except OSError:
        return False
    finally:
        os.close(fifo)
    Path(generation_tally(service, number)).unlink(missing_ok=True)
    return True


def tell_group(pid: int, name: str) -> None:
    """Sends a signal to all that is left of a process's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.Signals[f"SIG{name}"])


def _filled(text: str, service: Service, number: int) -> str:
    if service.link:
        text = text.replace("{socket}", generation_socket(service, number))
        text = text.replace("{control}", generation_control(service, number))
    return text.replace("{generation}", str(number))


def _environment(service: Service) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(NOT_HANDED_ON) and name not in PRIVATE
    }
    environment = inherited | service.env
    if service.env_file:
        from dotenv import dotenv_values  # noqa: PLC0415 - most projects have no such file

        with open(service.env_file, encoding="utf-8") as stream:  # noqa: PTH123 - its error names the file
            found = dotenv_values(stream=stream)
        environment |= {name: value for name, value in found.items() if value is not None}
    return environment


def _become(
    service: Service, argv: list[str], environment: dict[str, str], handed: list[int], output: int, parent: int
) -> None:
    """In the child: everything between fork and exec. Never returns."""
    try:
        os.setsid()
        moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 64) for each in (output, *handed)]
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in enumerate([nothing, moved[0], moved[0], *moved[1:]]):
            os.dup2(source, target, inheritable=True)
        if service.user:
            found = pwd.getpwnam(service.user)
            os.initgroups(found.pw_name, found.pw_gid)
            os.setgid(found.pw_gid)
            os.setuid(found.pw_uid)
            environment |= {"HOME": found.pw_dir, "USER": found.pw_name, "LOGNAME": found.pw_name}
        # After the change of user, which clears it.
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.Signals[f"SIG{service.orphan_signal}"]), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        if service.is_batch and os.sched_getscheduler(0) == os.SCHED_OTHER:  # else somebody has chosen another
            with contextlib.suppress(OSError):  # a container may forbid it
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        for number in OURS:
            signal.signal(number, signal.SIG_DFL)
        os.chdir(service.cwd)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(argv[0], argv, environment)
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not go on as a second supervisor
        os.write(2, f"{argv[0]} cannot be started: {error}\n".encode())
    finally:
        os._exit(127)
