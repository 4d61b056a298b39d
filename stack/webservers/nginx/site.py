"""The site as nginx reads it: upstreams and server blocks, fit for any http block."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from stack.desired import digest
from stack.facts import Facts
from stack.limits import HEAD_FIRST, HEAD_LINES
from stack.render import render
from stack.webservers.front import IDLE_WITHIN, Front, Site, Upstream

__all__ = ["LAYOUTS", "PROTOCOLS", "enforces", "module", "site_file", "steps", "witness"]

PROTOCOLS: tuple[str, ...] = ("uwsgi", "http", "fastcgi", "scgi")

LAYOUTS = {
    "sites-available": ("sites-available/{0}", "ln -sf ../sites-available/{0} /etc/nginx/sites-enabled/{0}"),
    "conf.d": ("conf.d/{0}.conf",),
}
"""Where an nginx that is there has its sites, and what enables one: Debian's way; that of nginx.org and Red Hat."""

LONGEST_VARIABLE = 46
"""Letters in the name of a variable, with a variables_hash_bucket_size of 64, as it is unless somebody sets it."""


def enforces(protocol: str) -> Mapping[str, str]:
    """The directives of a site that limit something."""
    return {
        "read_timeout": f"{_directives(protocol)}_read_timeout",
        "head": "large_client_header_buffers",
        "max_body": "client_max_body_size",
    }


def module(protocol: str) -> str:
    """The module of nginx that passes requests on in this protocol; it can be left out when nginx is built."""
    return f"http_{_directives(protocol)}_module"


def site_file(front: Front, facts: Facts) -> str:
    """No default_server, every http-level name prefixed, valid in any http block."""
    here = facts.nginx_layout
    ways = {}
    for each in sorted(LAYOUTS, key=lambda each: each != here):
        whose = "the nginx of this machine, which has" if each == here else "an nginx with"
        ways[f"Into {whose} {each}"] = steps(front, facts, each)
    return _rendered(front, witness(front), ways)


def steps(front: Front, facts: Facts, layout: str) -> tuple[str, ...]:
    """The commands that bring the site to an nginx with this layout, the first time or again.

    Whoever runs the stack must print it, as the sockets are where that user may have them: root only puts it there.
    """
    file, *enable = (each.format(front.name) for each in LAYOUTS[layout])
    put = "> /etc/nginx/{}" if facts.is_root else "| sudo tee /etc/nginx/{} >/dev/null"
    sudo = "" if facts.is_root else "sudo "
    return (
        "stackctl nginx-conf " + put.format(file),
        *(sudo + each for each in enable),
        f"{sudo}nginx -t && {sudo}nginx -s reload",
    )


def witness(front: Front) -> str:
    """A URL path that is answered with 204 only by an nginx that has loaded exactly this site.

    It is made of the digest of all but the comment on top: nobody can guess it, and who does learns nothing.
    """
    return "/.stackctl/" + digest(_rendered(front, "", {}))


def _rendered(front: Front, witness: str, ways: Mapping[str, Iterable[str]]) -> str:
    prefix = "stackctl_" + front.name.replace("-", "_")
    apps = {each.name: _upstream(each, prefix) for each in front.apps}
    has_dollar = any("$" in static.folder for site in front.sites for static in site.statics)
    return render(
        "nginx/site.conf.j2",
        name=front.name,
        ways=ways,
        dollar=_variable(f"{prefix}_dollar") if has_dollar else "",
        apps=list(apps.values()),
        idle_within=IDLE_WITHIN,
        head_first=_size(HEAD_FIRST),
        head_lines=HEAD_LINES,
        max_header=_size(front.max_header),
        witness=witness,
        # nginx gives a Host that it does not know to the first server of an address: that is the one without a name.
        sites=[_site(each, apps[each.app.name]) for each in sorted(front.sites, key=_has_names)],
    )


def _directives(protocol: str) -> str:
    """What the names of that module's directives begin with."""
    return "proxy" if protocol == "http" else protocol


def _upstream(upstream: Upstream, prefix: str) -> dict[str, Any]:
    name = f"{prefix}_{upstream.name.replace('-', '_')}"
    return {
        **dataclasses.asdict(upstream),
        "upstream": name,
        "host_variable": _variable(f"{name}_host"),
        "name_variable": _variable(f"{name}_name"),
    }


def _variable(name: str) -> str:
    """A name for a variable that nginx can hash: a long one ends in its digest."""
    return name if len(name) <= LONGEST_VARIABLE else f"{name[: LONGEST_VARIABLE - 9]}_{digest(name)[:8]}"


def _site(site: Site, app: dict[str, Any]) -> dict[str, Any]:
    listen = [address.removeprefix("0.0.0.0:") for address in site.listen]
    return {
        "listen": listen,
        "server_names": site.server_names,
        "max_body": _size(site.max_body),
        "statics": [
            {"url": each.url.rstrip("/"), "folder": each.folder.rstrip("/"), "private": each.private}
            for each in site.statics
        ],
        "private": " ".join(each.url.rstrip("/") for each in site.statics if each.private),
        "app": app,
    }


def _has_names(site: Site) -> bool:
    return any(name != "_" for name in site.server_names)


def _size(count: int) -> str:
    """Bytes as nginx writes them: 32m rather than 33554432."""
    for unit, factor in (("m", 1024**2), ("k", 1024)):
        if count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)
