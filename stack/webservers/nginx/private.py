"""An nginx of our own: its files, the command that checks them and the one that runs them."""

from __future__ import annotations

from collections.abc import Mapping

from stack.desired import Check, File, Service, digest
from stack.facts import Facts
from stack.render import nginx_quoted, render
from stack.webservers.front import Front
from stack.webservers.nginx import site
from stack.webservers.nginx.site import PROTOCOLS, site_file, witness

__all__ = ["KEPT", "MINIMUM", "PROTOCOLS", "checks", "enforces", "files", "loading", "services", "site_file", "witness"]

KEPT = True
MINIMUM = (1, 18)
"""The oldest nginx that is tested: Ubuntu 20.04's. Debian 12 has 1.22."""

MAY_NOT_BIND = r"syntax is ok\n(.*\n)*.*\[emerg\].* bind\(\) to .* failed \(13: "
"""What `nginx -t` says where the port is privileged and it has no right to it. It binds to try; in earnest it is handed
the sockets by the supervisor, whose right may be more than that of whoever types `stackctl reload`."""

KEPT_ON_DISK = ("proxy", "fastcgi", "uwsgi", "scgi")
"""Modules with a directory for what does not fit into memory. Made at start, so each must be ours."""


def enforces(protocol: str) -> Mapping[str, str]:
    """Those of the site, and when an old process of ours gives up."""
    return {**site.enforces(protocol), "shutdown": "worker_shutdown_timeout"}


def files(front: Front, facts: Facts) -> tuple[File, ...]:
    """A private nginx.conf, and the site file that it includes."""
    main = render(
        "nginx/nginx.conf.j2",
        name=front.name,
        user=f"{front.user} {front.group}".strip(),
        shutdown=front.shutdown,
        json=front.log_format == "json",
        upstream_kinds=[each for each in KEPT_ON_DISK if facts.nginx is None or _module(each) in facts.nginx.modules],
    )
    return (File("nginx/nginx.conf", main), File("nginx/site.conf", site_file(front, facts)))


def loading(front: Front, facts: Facts) -> str:  # noqa: ARG001 - the shape of a web server
    """It reads its files when it is told to."""
    return "`stackctl reload` has it read its files; `stackctl logs nginx` says why it might not."


def checks(facts: Facts) -> tuple[Check, ...]:
    """`nginx -t`, which acts a little: it opens logs and writes a pid file, so both have a place beside the files."""
    argv = (*_command(facts, "{files}"), "-t", "-g", "pid tmp/nginx/check.pid;")
    return (Check("nginx -t", argv, forgives=MAY_NOT_BIND),)


def services(front: Front, facts: Facts, files: tuple[File, ...]) -> tuple[Service, ...]:
    """Keep nginx in the foreground. It gets its public sockets by its own upgrade variable, NGINX.

    It is in no hurry (`is_batch`): were it to interrupt the app server for each answer that this one has just sent, it
    would find that one answer alone, and the app server cold caches. docs/server.md, "nginx and the CPU", has figures.
    """
    pid_file = f"{front.runtime_dir}/nginx.g{{generation}}.pid"
    nginx = Service(
        name="nginx",
        tier=1,
        argv=(*_command(facts, front.state_dir), "-g", f"daemon off; pid {nginx_quoted(pid_file)};"),
        cwd=front.state_dir,
        pid_file=pid_file,
        listeners=tuple(dict.fromkeys(address for site in front.sites for address in site.listen)),
        listeners_variable="NGINX",
        reads=digest(files),
        reload_signal="HUP",
        program=facts.nginx.identity if facts.nginx else "",
        logs=(f"{front.state_dir}/log/access.log",),
        reopen_signal="USR1",
        is_batch=True,
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
