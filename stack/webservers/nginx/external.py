"""An nginx that somebody else runs, the distribution's as a rule: we write the site for it and run nothing."""

from __future__ import annotations

from stack.desired import Check, File, Service
from stack.facts import Facts
from stack.webservers.front import Front
from stack.webservers.nginx.site import PROTOCOLS, enforces, site_file, steps, witness

__all__ = ["KEPT", "PROTOCOLS", "checks", "enforces", "files", "loading", "services", "site_file", "witness"]

KEPT = False


def files(front: Front, facts: Facts) -> tuple[File, ...]:
    """The site, as a copy to compare with."""
    return (File("nginx/site.conf", site_file(front, facts)),)


def loading(front: Front, facts: Facts) -> str:
    """The commands that have it load the site."""
    if not facts.nginx_layout:
        return "`stackctl nginx-conf` prints what it should have: its first lines say where that goes."
    return "\n".join(steps(front, facts, facts.nginx_layout))


def checks(facts: Facts) -> tuple[Check, ...]:  # noqa: ARG001 - the shape of a web server
    """None: it is checked where it is put."""
    return ()


def services(front: Front, facts: Facts, files: tuple[File, ...]) -> tuple[Service, ...]:  # noqa: ARG001 - the same
    """None."""
    return ()
