"""The app servers: one module each, all of the shape `AppServer`. A new one is a module and a line below."""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol

from stack.appservers import bundled
from stack.config import App
from stack.desired import File
from stack.facts import AppFacts

__all__ = ["APP_SERVERS", "AppServer"]


class AppServer(Protocol):
    """What a module of this package offers."""

    PROTOCOLS: tuple[str, ...]
    """The protocols it speaks to the web server; the first is the one to use unless told otherwise."""
    STOP_SIGNAL: str
    """Asks it to finish what is in hand and end."""
    ORPHAN_SIGNAL: str
    """Ends it at once, with all its processes, when the supervisor has died."""

    def files(self, name: str, app: App, workers: int) -> tuple[File, ...]:
        """The server's own configuration files, if it has any."""

    def argv(self, name: str, app: App, facts: AppFacts, entry_directory: str, workers: int) -> tuple[str, ...]:
        """The command that serves `stackctl_entry:application` from `entry_directory` on the socket `{socket}`."""


APP_SERVERS: MappingProxyType[str, AppServer] = MappingProxyType({"bundled": bundled})
