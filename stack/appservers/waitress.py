"""waitress, from the project's venv, over HTTP: a peer that `stackctl bench` measures, not an engine to choose."""

from __future__ import annotations

from collections.abc import Mapping

from stack.appservers.launch import Launch
from stack.desired import File
from stack.render import render

PROGRAM = ""  # a module of the project's Python
INSTALL = "waitress"
PROTOCOLS: tuple[str, ...] = ("http",)
KEEPS_ALIVE = True
FACES_CLIENTS = False
PRELOADS = False
MISREADS: tuple[str, ...] = ()
STOP_SIGNAL = "TERM"
STOP_WORD = ""
DRAINS = True
ORPHAN_SIGNAL = "TERM"
LEAVE_SIGNAL = ""
ENFORCES: Mapping[str, str] = {
    "timeout": "(no limit)",
    "kill": "(no limit)",
    "drain": "(no limit)",
    "buffer": "max_request_header_size",
    "backlog": "listen(2)",
}


def files(launch: Launch) -> tuple[File, ...]:
    """The script that starts as many processes of it as there are workers."""
    text = render(
        "waitress/serve.py.j2",
        name=launch.name,
        directory=launch.entry_directory,
        module=launch.module.partition(":")[0],
        workers=launch.workers,
        threads=launch.app.server.threads,
        backlog=launch.limits.backlog,
        umask=f"0o{0o777 & ~launch.socket_mode:03o}",
    )
    return (File(f"apps/{launch.name}/stackctl_waitress.py", text),)


def argv(launch: Launch) -> tuple[str, ...]:
    """That script, in the app's Python."""
    return (launch.facts.python.path, f"{launch.entry_directory}/stackctl_waitress.py", "{socket}")
