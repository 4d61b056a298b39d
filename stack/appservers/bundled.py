"""The WSGI server that comes with stackctl, `stack/wsgi`. It takes its settings as arguments and needs no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import stack
from stack.appservers.launch import Launch
from stack.desired import File

PROGRAM = ""
INSTALL = ""
PROTOCOLS: tuple[str, ...] = ("http", "uwsgi", "fastcgi", "scgi")
KEEPS_ALIVE = True
FACES_CLIENTS = True
PRELOADS = True
MISREADS: tuple[str, ...] = ()
STOP_SIGNAL = "TERM"
STOP_WORD = ""
DRAINS = True
ORPHAN_SIGNAL = "INT"
LEAVE_SIGNAL = ""
ENFORCES: Mapping[str, str] = {
    "timeout": "--timeout",
    "kill": "(its master)",
    "drain": "--stop-within",
    "buffer": "(fixed)",
    "backlog": "--backlog",
    "max_body": "--max-body",
}

PRELOADING: Mapping[bool | str, tuple[str, ...]] = {False: (), True: ("--preload",), "anyway": ("--preload-anyway",)}

# Run by path, not as a module: the project's interpreter need not have stackctl installed, and should not see what is.
BOOTSTRAP = Path(stack.__file__).parent / "wsgi" / "bootstrap.py"
FIRST_INHERITED = 3  # descriptor of the first public socket, as the supervisor hands them down


def files(launch: Launch) -> tuple[File, ...]:  # noqa: ARG001 - the shape of an app server
    """None."""
    return ()


def argv(launch: Launch) -> tuple[str, ...]:
    """The server's command line; it knows the protocol by a connection's first byte."""
    limits = launch.limits
    return (
        launch.facts.python.path,
        str(BOOTSTRAP),
        launch.module,
        *("--pythonpath", launch.entry_directory),
        *("--bind", "unix:{socket}"),
        *("--state", "{control}"),
        *("--socket-mode", f"{launch.socket_mode:o}"),
        *("--workers", str(launch.workers)),
        *("--threads", str(launch.app.server.threads)),
        *("--backlog", str(limits.backlog)),
        *("--timeout", f"{limits.timeout:g}"),
        *("--stop-within", f"{limits.drain:g}"),
        *PRELOADING[launch.app.server.preload],
        *_facing_clients(launch),
    )


def _facing_clients(launch: Launch) -> Iterator[str]:
    for number in range(launch.public):
        yield from ("--bind", f"fd://{FIRST_INHERITED + number}")
    for static in launch.statics if launch.public else ():
        yield from ("--static", f"{static.url}={static.folder}")
    if launch.public:
        yield from ("--max-body", str(launch.limits.max_body))
