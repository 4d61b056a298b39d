"""What a web server is told of a stack: addresses, names, folders and the apps behind. Nothing of any app server."""

from __future__ import annotations

from dataclasses import dataclass

from stack.facts import Static

IDLE_WITHIN = 0.5
"""Seconds for which a web server keeps an idle connection to an app server: short, as a reload waits for it."""

__all__ = ["Front", "Site", "Upstream"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """An app as seen from the web server: the link to connect to, the protocol to speak, how long to wait (seconds).

    `keeps_alive`: a connection may be kept for the next request.
    """

    name: str
    link: str
    protocol: str
    read_timeout: float
    keeps_alive: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """Where clients connect, and who answers. `listen` are `HOST:PORT`, `max_body` is in bytes."""

    name: str
    listen: tuple[str, ...]
    server_names: tuple[str, ...]
    max_body: int
    statics: tuple[Static, ...]
    app: Upstream


@dataclass(frozen=True, slots=True)
class Front:
    """Everything that faces the clients. Only root has a `user` and a `group` to name.

    A head may have a few lines of `max_header` bytes. What an old process holds it closes after `shutdown` seconds, and
    is killed after `stop_within`.
    `log_format` is what requests are logged as, `text` or `json`.
    """

    name: str
    state_dir: str
    runtime_dir: str
    apps: tuple[Upstream, ...]
    sites: tuple[Site, ...]
    max_header: int
    shutdown: float
    stop_within: float
    user: str
    group: str
    log_format: str
