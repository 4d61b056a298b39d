"""What an app server is told of the app that it shall run. Nothing of any web server."""

from __future__ import annotations

from dataclasses import dataclass

from stack.config import App
from stack.facts import AppFacts, ServerProgram, Static
from stack.limits import AppLimits

__all__ = ["Launch"]


@dataclass(frozen=True, slots=True)
class Launch:
    """One app, to be served as `module` from `entry_directory`, in `protocol` on the socket `{socket}`.

    `program` is the app server's own, where it is not the bundled one. `{control}` is for a generation's own fifo or
    socket. `socket_mode` is the socket's; `public` how many public listening sockets it inherits, from descriptor 3 on:
    then it faces the clients, serves the `statics` too and refuses bodies of more than `limits.max_body` bytes.
    `limits` has the numbers that must fit those of others: no app server's module reads them from `app.server`.
    """

    name: str
    app: App
    facts: AppFacts
    entry_directory: str
    protocol: str
    workers: int
    limits: AppLimits
    module: str = "stackctl_entry:application"
    program: ServerProgram | None = None
    socket_mode: int = 0o600
    public: int = 0
    statics: tuple[Static, ...] = ()
