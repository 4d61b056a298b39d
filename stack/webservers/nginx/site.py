"""The site as nginx reads it: upstreams and server blocks, fit for any http block."""

from __future__ import annotations

import dataclasses
from typing import Any

from stack.desired import digest
from stack.facts import Facts
from stack.render import render
from stack.webservers.front import IDLE_WITHIN, Front, Site, Upstream

__all__ = ["LAYOUTS", "PROTOCOLS", "site_file", "witness"]

PROTOCOLS: tuple[str, ...] = ("uwsgi", "http")

LAYOUTS = {
    "sites-available": (
        "{0} > /etc/nginx/sites-available/{1}",
        "ln -s ../sites-available/{1} /etc/nginx/sites-enabled/{1}",
        "nginx -t && nginx -s reload",
    ),
    "conf.d": ("{0} > /etc/nginx/conf.d/{1}.conf", "nginx -t && nginx -s reload"),
}
"""How a site gets into an nginx that is there: Debian's way, and that of nginx.org, Red Hat and Alpine."""

LONGEST_VARIABLE = 46
"""Letters in the name of a variable, with a variables_hash_bucket_size of 64, as it is unless somebody sets it."""


def site_file(front: Front, facts: Facts) -> str:
    """No default_server, every http-level name prefixed, valid in any http block."""
    return _rendered(front, facts, witness(front, facts))


def witness(front: Front, facts: Facts) -> str:
    """A URL path that is answered with 204 only by an nginx that has loaded exactly this file.

    It is made of the file's own digest: nobody can guess it, and who does learns nothing.
    """
    return "/.stackctl/" + digest(_rendered(front, facts, ""))


def _rendered(front: Front, facts: Facts, witness: str) -> str:
    prefix = "stackctl_" + front.name.replace("-", "_")
    apps = {each.name: _upstream(each, prefix) for each in front.apps}
    has_dollar = any("$" in static.folder for site in front.sites for static in site.statics)
    layout = facts.nginx_layout or "sites-available"
    return render(
        "nginx/site.conf.j2",
        name=front.name,
        layout=layout,
        steps=[step.format("stackctl nginx-conf", front.name) for step in LAYOUTS[layout]],
        dollar=_variable(f"{prefix}_dollar") if has_dollar else "",
        apps=list(apps.values()),
        idle_within=IDLE_WITHIN,
        witness=witness,
        # nginx gives a Host that it does not know to the first server of an address: that is the one without a name.
        sites=[_site(each, apps[each.app.name]) for each in sorted(front.sites, key=_has_names)],
    )


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


def _size(count: int) -> str:
    """Bytes as nginx writes them: 32m rather than 33554432."""
    for unit, factor in (("m", 1024**2), ("k", 1024)):
        if count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)
