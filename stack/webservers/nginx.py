"""nginx: its files, the command that checks them and the one that runs them."""

from __future__ import annotations

import dataclasses
from typing import Any

from stack.desired import Check, File, Service, digest
from stack.facts import Facts
from stack.render import nginx_quoted, render
from stack.webservers.front import IDLE_WITHIN, Front, Site, Upstream

PROTOCOLS: tuple[str, ...] = ("uwsgi", "http")
MINIMUM = (1, 18)
"""The oldest nginx that is tested: Ubuntu 20.04's. Debian 12 has 1.22."""

LONGEST_VARIABLE = 46
"""Letters in the name of a variable, with a variables_hash_bucket_size of 64, as it is unless somebody sets it."""

KEPT_ON_DISK = ("proxy", "fastcgi", "uwsgi", "scgi")
"""Modules with a directory for what does not fit into memory. Made at start, so each must be ours."""


def site_file(front: Front, facts: Facts) -> str:  # noqa: ARG001 - the shape of a web server
    """Upstreams and server blocks: no default_server, every http-level name prefixed, valid in any http block."""
    prefix = "stackctl_" + front.name.replace("-", "_")
    apps = {each.name: _upstream(each, prefix) for each in front.apps}
    return render(
        "nginx/site.conf.j2",
        name=front.name,
        dollar=_variable(f"{prefix}_dollar")
        if any("$" in static.folder for site in front.sites for static in site.statics)
        else "",
        apps=list(apps.values()),
        idle_within=IDLE_WITHIN,
        # nginx gives a Host that it does not know to the first server of an address: that is the one without a name.
        sites=[_site(each, apps[each.app.name]) for each in sorted(front.sites, key=_has_names)],
    )


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


def check(facts: Facts) -> Check:
    """`nginx -t`, which acts a little: it opens logs and writes a pid file, so both have a place beside the files."""
    return Check("nginx -t", (*_command(facts, "{files}"), "-t", "-q", "-g", "pid tmp/nginx/check.pid;"))


def service(front: Front, facts: Facts) -> Service:
    """Keep nginx in the foreground. It gets its public sockets by its own upgrade variable, NGINX."""
    pid_file = f"{front.runtime_dir}/nginx.g{{generation}}.pid"
    return Service(
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


def _command(facts: Facts, prefix: str) -> tuple[str, ...]:
    program = facts.nginx.path if facts.nginx else "nginx"
    log = ("-e", "stderr") if not facts.nginx or facts.nginx.version >= (1, 19, 5) else ()
    return (program, "-p", prefix, "-c", "nginx/nginx.conf", *log)


def _upstream(upstream: Upstream, prefix: str) -> dict[str, Any]:
    name = f"{prefix}_{upstream.name.replace('-', '_')}"
    return {**dataclasses.asdict(upstream), "upstream": name, "host_variable": _variable(f"{name}_host")}


def _variable(name: str) -> str:
    """A name for a variable that nginx can hash: a long one ends in its digest."""
    return name if len(name) <= LONGEST_VARIABLE else f"{name[: LONGEST_VARIABLE - 9]}_{digest(name)[:8]}"


def _site(site: Site, app: dict[str, Any]) -> dict[str, Any]:
    listen = [address.removeprefix("0.0.0.0:") for address in site.listen]
    return {
        "listen": listen,
        "server_names": site.server_names,
        "max_body": _size(site.max_body),
        "statics": [{"url": each.url.rstrip("/"), "folder": each.folder.rstrip("/")} for each in site.statics],
        "app": app,
    }


def _has_names(site: Site) -> bool:
    return any(name != "_" for name in site.server_names)


def _module(kind: str) -> str:
    return f"http_{kind}_module"


def _size(count: int) -> str:
    """Bytes as nginx writes them: 32m rather than 33554432."""
    for unit, factor in (("m", 1024**2), ("k", 1024)):
        if count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)
