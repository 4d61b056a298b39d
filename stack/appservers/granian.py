"""granian, from the project's venv, over HTTP: a peer that `stackctl bench` measures, not an engine to choose."""

from __future__ import annotations

from collections.abc import Mapping

from stack.appservers.launch import Launch
from stack.desired import File

PROGRAM = "granian"
INSTALL = "granian"
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
    "drain": "--workers-kill-timeout",
    "buffer": "--http1-buffer-size",
    "backlog": "--backlog",
}


def files(launch: Launch) -> tuple[File, ...]:  # noqa: ARG001 - the shape of an app server
    """None."""
    return ()


def argv(launch: Launch) -> tuple[str, ...]:
    """What it is told; its own defaults otherwise."""
    return (
        launch.program.path if launch.program else PROGRAM,
        *("--interface", "wsgi"),
        *("--uds", "{socket}"),
        *("--uds-permissions", f"0{launch.socket_mode:o}"),  # without the 0 it takes it for a decimal number
        *("--workers", str(launch.workers)),
        *("--blocking-threads", str(launch.app.server.threads)),
        *("--backlog", str(max(128, launch.limits.backlog))),
        "--no-ws",
        "--respawn-failed-workers",
        f"{launch.entry_directory}/{launch.module}",  # the directory of what it loads comes first on its path
    )
