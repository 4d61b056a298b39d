"""The app servers: one module each, all of the shape `AppServer`. A new one is a module and a line below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from stack.appservers import bundled, granian, gunicorn, uwsgi, waitress
from stack.appservers.launch import Launch
from stack.desired import File

__all__ = ["APP_SERVERS", "PEERS", "AppServer", "Launch"]


class AppServer(Protocol):
    """What a module of this package offers."""

    PROGRAM: str
    """The name of its program, in the project's venv or on PATH; "" where there is none to find."""
    INSTALL: str
    """What to give to `pip install` for it."""
    PROTOCOLS: tuple[str, ...]
    """The protocols it speaks to the web server; the first is the one to use unless told otherwise."""
    KEEPS_ALIVE: bool
    """Whether it keeps a connection for the next request, over HTTP."""
    FACES_CLIENTS: bool
    """Whether it can take the public sockets itself, where there is no web server."""
    PRELOADS: bool
    """Whether it can load the app once for all its workers, and looks first for what would not survive the fork."""
    MISREADS: tuple[str, ...]
    """What it takes for something else in a path on its command line."""
    STOP_SIGNAL: str
    """Asks it to finish what is in hand and end."""
    STOP_WORD: str
    """The same, written to its fifo at `{control}`; "" if it has none."""
    DRAINS: bool
    """Whether it then finishes all that it has in hand; one that does not is asked once nobody is connected to it."""
    ORPHAN_SIGNAL: str
    """Ends it at once, with all its processes, when the supervisor has died."""
    LEAVE_SIGNAL: str
    """Has one of its workers finish what is in hand and be replaced; "" if it sees to it itself that a request which
    hangs, or raises what ends a process, costs nothing but itself. Else the app is served in a guard that does."""
    ENFORCES: Mapping[str, str]
    """Which of its options enforces which limit, by the names of `AppLimits`.

    `timeout`, `kill`, `drain`, `buffer` and `backlog` always; `field` and `max_body` if it has them.
    """

    def files(self, launch: Launch) -> tuple[File, ...]:
        """The server's own configuration files, if it has any."""

    def argv(self, launch: Launch) -> tuple[str, ...]:
        """The command."""


APP_SERVERS: MappingProxyType[str, AppServer] = MappingProxyType(
    {"bundled": bundled, "uwsgi": uwsgi, "gunicorn": gunicorn}
)
"""Those that `[server] engine` may name."""

PEERS: MappingProxyType[str, AppServer] = MappingProxyType({"granian": granian, "waitress": waitress})
"""Those that `stackctl bench` measures beside them. That they reload without loss is proven nowhere."""
