"""The WSGI server that comes with stackctl, `stack/wsgi`. It takes its settings as arguments and needs no file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import stack
from stack.appservers.launch import Launch
from stack.desired import File

PROTOCOLS: tuple[str, ...] = ("uwsgi", "http")
FACES_CLIENTS = True
STOP_SIGNAL = "TERM"
ORPHAN_SIGNAL = "INT"

# Run by path, not as a module: the project's interpreter need not have stackctl installed, and should not see what is.
BOOTSTRAP = Path(stack.__file__).parent / "wsgi" / "bootstrap.py"
FIRST_INHERITED = 3  # descriptor of the first public socket, as the supervisor hands them down


def files(launch: Launch) -> tuple[File, ...]:  # noqa: ARG001 - the shape of an app server
    """None."""
    return ()


def argv(launch: Launch) -> tuple[str, ...]:
    """The server's command line; it knows the protocol by a connection's first byte."""
    server = launch.app.server
    return (
        launch.facts.python.path,
        str(BOOTSTRAP),
        "stackctl_entry:application",
        *("--pythonpath", launch.entry_directory),
        *("--bind", "unix:{socket}"),
        *("--socket-mode", f"{launch.socket_mode:o}"),
        *("--workers", str(launch.workers)),
        *("--threads", str(server.threads)),
        *("--backlog", str(server.backlog)),
        *("--timeout", f"{server.timeout:g}"),
        *("--stop-within", f"{server.stop_within:g}"),
        *_facing_clients(launch),
    )


def _facing_clients(launch: Launch) -> Iterator[str]:
    for number in range(launch.public):
        yield from ("--bind", f"fd://{FIRST_INHERITED + number}")
    for static in launch.statics if launch.public else ():
        yield from ("--static", f"{static.url}={static.folder}")
    if launch.public and launch.max_body:
        yield from ("--max-body", str(launch.max_body))
