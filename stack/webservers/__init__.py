"""The web servers: one module each, all of the shape `WebServer`. A new one is a module and a line below."""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol

from stack.desired import Check, File, Service
from stack.facts import Facts
from stack.webservers import nginx
from stack.webservers.front import Front, Upstream

__all__ = ["WEB_SERVERS", "Front", "Upstream", "WebServer"]


class WebServer(Protocol):
    """What a module of this package offers."""

    PROTOCOLS: tuple[str, ...]
    """The protocols in which it forwards requests."""

    def site_file(self, front: Front, facts: Facts) -> str:
        """What goes into a configuration that somebody else owns: the sites and what they need, and no more."""

    def files(self, front: Front, facts: Facts) -> tuple[File, ...]:
        """All that it takes to run one of our own."""

    def check(self, facts: Facts) -> Check:
        """The command by which the program itself accepts the files."""

    def service(self, front: Front, facts: Facts) -> Service:
        """The command to keep running."""


WEB_SERVERS: MappingProxyType[str, WebServer] = MappingProxyType({"nginx": nginx})
