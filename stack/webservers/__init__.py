"""The web servers: a module each, all of the shape `WebServer`. A new one is a module and a line below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from stack.desired import Check, File, Service
from stack.facts import Facts
from stack.webservers import direct
from stack.webservers.front import Front, Upstream
from stack.webservers.nginx import external, private

__all__ = ["DIRECT", "EXTERNAL", "PRIVATE", "WEB_SERVERS", "Front", "Upstream", "WebServer"]

PRIVATE, EXTERNAL, DIRECT = "nginx", "external", "none"


class WebServer(Protocol):
    """What a module of this package offers."""

    KEPT: bool
    """Whether what faces the clients is ours to keep running: then its addresses are ours to hold."""
    PROTOCOLS: tuple[str, ...]
    """The protocols in which it forwards requests."""

    def enforces(self, protocol: str) -> Mapping[str, str]:
        """Its directives that enforce limits, where it forwards in this protocol.

        `read_timeout`, `head` and `max_body` if it forwards at all; `shutdown` if it is ours to stop.
        """

    def site_file(self, front: Front, facts: Facts) -> str:
        """What goes into a configuration that somebody else owns: the sites and what they need, and no more."""

    def witness(self, front: Front) -> str:
        """A URL path that is answered with 204 only if exactly this site is loaded; empty if there is none."""

    def loading(self, front: Front, facts: Facts) -> str:
        """What to do where it is not loaded."""

    def files(self, front: Front, facts: Facts) -> tuple[File, ...]:
        """All that it takes to run it."""

    def checks(self, facts: Facts) -> tuple[Check, ...]:
        """The commands by which the programs themselves accept the files."""

    def services(self, front: Front, facts: Facts, files: tuple[File, ...]) -> tuple[Service, ...]:
        """The commands to keep running, which read these files."""


WEB_SERVERS: MappingProxyType[str, WebServer] = MappingProxyType({PRIVATE: private, EXTERNAL: external, DIRECT: direct})
