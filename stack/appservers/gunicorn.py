"""gunicorn, from the project's venv, over HTTP: its own uwsgi protocol drops variables.

Its socket would be open to everybody (0777 under its default umask), and it keeps no connection alive: closing an idle
one while it stops would turn a POST into a 502.
"""

from __future__ import annotations

from collections.abc import Mapping

from stack.appservers.launch import Launch
from stack.desired import File
from stack.render import render

PROGRAM = "gunicorn"
INSTALL = "gunicorn"
PROTOCOLS: tuple[str, ...] = ("http",)
KEEPS_ALIVE = False
FACES_CLIENTS = False
PRELOADS = False
MISREADS: tuple[str, ...] = ()
STOP_SIGNAL = "TERM"
STOP_WORD = ""
DRAINS = True
ORPHAN_SIGNAL = "KILL"  # its workers die with it (post_fork); QUIT gets lost while it starts some
LEAVE_SIGNAL = "TERM"
ENFORCES: Mapping[str, str] = {
    "timeout": "(its guard)",
    "kill": "(its guard)",
    "drain": "(the supervisor)",
    "buffer": "(no limit)",
    "backlog": "backlog",
    "field": "limit_request_field_size",
}


def files(launch: Launch) -> tuple[File, ...]:
    """Its configuration."""
    limits, threads = launch.limits, launch.app.server.threads
    text = render(
        "gunicorn/gunicorn.conf.py.j2",
        name=launch.name,
        directory=launch.entry_directory,
        workers=launch.workers,
        threads=threads,
        backlog=limits.backlog,
        field=limits.field,
        umask=f"0o{0o777 & ~launch.socket_mode:03o}",
    )
    return (File(f"apps/{launch.name}/gunicorn.conf.py", text),)


def argv(launch: Launch) -> tuple[str, ...]:
    """What differs from generation to generation, and paths."""
    return (
        launch.program.path if launch.program else PROGRAM,
        *("--config", f"{launch.entry_directory}/gunicorn.conf.py"),
        *("--bind", "unix:{socket}"),
        launch.module,
    )
