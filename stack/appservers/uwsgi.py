"""uWSGI, from the project's venv (`uwsgi` or `pyuwsgi`) or the distribution's with its Python plugin.

Its own reload is never used: it executes itself again, which in a venv of pyuwsgi fails, and its chain reload can hang.
A reload is another uWSGI on another socket; the old one is asked by `q` on its master fifo, once nobody is connected to
it any more: SIGTERM cuts off what is in hand, and `q` an answer that waits for nginx to take it.
"""

from __future__ import annotations

from collections.abc import Mapping

from stack.appservers.launch import Launch
from stack.desired import File
from stack.render import render

PROGRAM = "uwsgi"
INSTALL = "pyuwsgi"
PROTOCOLS: tuple[str, ...] = ("uwsgi", "http")
KEEPS_ALIVE = False
FACES_CLIENTS = False
PRELOADS = False
# An environment variable, a file whose text is put there, and what parts a file from a section and a host from a port.
MISREADS: tuple[str, ...] = ("$(", "@(", ":")
STOP_SIGNAL = "TERM"
STOP_WORD = "q"
DRAINS = False  # 2.0.30 does not retry a poll() that the word interrupts: what waits for nginx to take it is cut off
ORPHAN_SIGNAL = "KILL"  # its workers die with it (no-orphans); INT gets lost while it starts
LEAVE_SIGNAL = "HUP"
ENFORCES: Mapping[str, str] = {
    "timeout": "(its guard)",
    "kill": "(its guard)",
    "drain": "(the supervisor)",
    "buffer": "buffer-size",
    "backlog": "listen",
}
BUFFER_MOST = 65535
"""uWSGI takes no larger `buffer-size`; it holds all the variables of a request."""


def files(launch: Launch) -> tuple[File, ...]:
    """The ini file, and over HTTP the module that puts the web server's facts in their places."""
    limits = launch.limits
    text = render(
        "uwsgi/uwsgi.ini.j2",
        name=launch.name,
        workers=launch.workers,
        threads=launch.app.server.threads,
        buffer_size=min(limits.buffer, BUFFER_MOST),
        backlog=limits.backlog,
        socket_mode=f"{launch.socket_mode:o}",
        module=launch.module,
        protocol=launch.protocol,
        plugin="python3" if launch.program and "debian" in launch.program.version else "",
    )
    return (File(f"apps/{launch.name}/uwsgi.ini", text),)


def argv(launch: Launch) -> tuple[str, ...]:
    """What differs from generation to generation, and paths: in an ini file uWSGI would look for `%` in them."""
    socket = "--http-socket" if launch.protocol == "http" else "--uwsgi-socket"
    program, venv = launch.program, launch.program.venv if launch.program else ""
    return (
        program.path if program else PROGRAM,
        *("--ini", f"{launch.entry_directory}/uwsgi.ini"),
        *("--pythonpath", launch.entry_directory),
        *(("--virtualenv", venv) if venv else ()),
        *(socket, "{socket}"),
        *("--master-fifo", "{control}"),
    )
