"""An nginx of our own: its files, the command that checks them and the one that runs them."""

from __future__ import annotations

from stack.desired import Check, File, Service, digest
from stack.facts import Facts
from stack.render import nginx_quoted, render
from stack.webservers.front import Front
from stack.webservers.nginx.site import PROTOCOLS, site_file, witness

__all__ = ["KEPT", "MINIMUM", "PROTOCOLS", "checks", "files", "services", "site_file", "witness"]

KEPT = True
MINIMUM = (1, 18)
"""The oldest nginx that is tested: Ubuntu 20.04's. Debian 12 has 1.22."""

KEPT_ON_DISK = ("proxy", "fastcgi", "uwsgi", "scgi")
"""Modules with a directory for what does not fit into memory. Made at start, so each must be ours."""


def files(front: Front, facts: Facts) -> tuple[File, ...]:
    """A private nginx.conf, and the site file that it includes."""
    main = render(
        "nginx/nginx.conf.j2",
        name=front.name,
        user=f"{front.user} {front.group}".strip(),
        stop_within=front.stop_within,
        upstream_kinds=[each for each in KEPT_ON_DISK if facts.nginx is None or _module(each) in facts.nginx.modules],
    )
    return (File("nginx/nginx.conf", main), File("nginx/site.conf", site_file(front, facts)))


def checks(facts: Facts) -> tuple[Check, ...]:
    """`nginx -t`, which acts a little: it opens logs and writes a pid file, so both have a place beside the files."""
    return (Check("nginx -t", (*_command(facts, "{files}"), "-t", "-q", "-g", "pid tmp/nginx/check.pid;")),)


def services(front: Front, facts: Facts) -> tuple[Service, ...]:
    """Keep nginx in the foreground. It gets its public sockets by its own upgrade variable, NGINX."""
    pid_file = f"{front.runtime_dir}/nginx.g{{generation}}.pid"
    nginx = Service(
        name="nginx",
        tier=1,
        argv=(*_command(facts, front.state_dir), "-g", f"daemon off; pid {nginx_quoted(pid_file)};"),
        cwd=front.state_dir,
        pid_file=pid_file,
        listeners=tuple(dict.fromkeys(address for site in front.sites for address in site.listen)),
        listeners_variable="NGINX",
        reads=digest(files(front, facts)),
        reload_signal="HUP",
        stop_signal="QUIT",
        orphan_signal="TERM",
        stop_within=front.stop_within,
    )
    return (nginx,)


def _command(facts: Facts, prefix: str) -> tuple[str, ...]:
    program = facts.nginx.path if facts.nginx else "nginx"
    log = ("-e", "stderr") if not facts.nginx or facts.nginx.version >= (1, 19, 5) else ()
    return (program, "-p", prefix, "-c", "nginx/nginx.conf", *log)


def _module(kind: str) -> str:
    return f"http_{kind}_module"
