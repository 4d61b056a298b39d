"""What an app server is told of the app that it shall run. Nothing of any web server."""

from __future__ import annotations

from dataclasses import dataclass

from stack.config import App
from stack.facts import AppFacts, Static

__all__ = ["Launch"]


@dataclass(frozen=True, slots=True)
class Launch:
    """One app, to be served as `stackctl_entry:application` from `entry_directory` on the socket `{socket}`.

    `socket_mode` is the socket's; `public` how many public listening sockets it inherits, from descriptor 3 on: then it
    faces the clients, serves the `statics` too and refuses bodies of more than `max_body` bytes.
    """

    name: str
    app: App
    facts: AppFacts
    entry_directory: str
    workers: int
    socket_mode: int = 0o600
    public: int = 0
    statics: tuple[Static, ...] = ()
    max_body: int = 0
