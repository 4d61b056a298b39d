"""No web server at all: the app server takes the public sockets itself."""

from __future__ import annotations

from collections.abc import Mapping

from stack.desired import Check, File, Service
from stack.errors import ConfigError
from stack.facts import Facts
from stack.webservers.front import Front

__all__ = ["KEPT", "PROTOCOLS", "checks", "enforces", "files", "loading", "services", "site_file", "witness"]

KEPT = True
PROTOCOLS: tuple[str, ...] = ("uwsgi", "http", "fastcgi", "scgi")  # on the private socket, where probes are made


def enforces(protocol: str) -> Mapping[str, str]:  # noqa: ARG001 - the shape of a web server
    """Nothing."""
    return {}


def site_file(front: Front, facts: Facts) -> str:  # noqa: ARG001 - the shape of a web server
    """There is none.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        '[site] web = "none": there is no web server to configure',
        "For one that somebody else runs: --set site.web=external",
    )


def witness(front: Front) -> str:  # noqa: ARG001 - the shape of a web server
    """None: nothing was loaded."""
    return ""


def loading(front: Front, facts: Facts) -> str:  # noqa: ARG001 - the shape of a web server
    """Nothing."""
    return ""


def files(front: Front, facts: Facts) -> tuple[File, ...]:  # noqa: ARG001 - the shape of a web server
    """None."""
    return ()


def checks(facts: Facts) -> tuple[Check, ...]:  # noqa: ARG001 - the shape of a web server
    """None."""
    return ()


def services(front: Front, facts: Facts, files: tuple[File, ...]) -> tuple[Service, ...]:  # noqa: ARG001 - the same
    """None."""
    return ()
