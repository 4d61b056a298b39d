"""What `up` says of a stack, in lines that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from stack.config import Config, Site
from stack.facts import Facts
from stack.plan.apps import protocol, workers
from stack.plan.sites import url
from stack.webservers import DIRECT, EXTERNAL, PRIVATE

__all__ = ["summary"]


def summary(config: Config, facts: Facts) -> Iterable[tuple[str, str]]:
    """Pairs of a label and a text."""
    for key, site in config.sites.items():
        name = config.app_of(site)
        app, found = config.apps[name], facts.apps[name]
        count, threads = workers(app, facts), app.server.threads
        yield "site", url(site)
        yield "way", f"browser -> {_web(site, facts)}{app.server.engine} server -> {found.framework}"
        if site.web != DIRECT:
            yield "hop", f"{protocol(app)} on the unix socket {name}.{protocol(app)}.sock"
        yield "app", f"{found.module}:{found.expression}, run by {_short(found.python.path, config)}"
        yield "capacity", f"{count} workers x {threads} threads: {count * threads} requests at once"
        for static in facts.statics[key]:
            by = {PRIVATE: "nginx", EXTERNAL: "nginx"}.get(site.web, "the app server")
            if not static.private:
                yield "static", f"{static.url}/ from {_short(static.folder, config)}, served by {by}"
    if any(site.web == EXTERNAL for site in config.sites.values()):
        yield "nginx", "not ours: `stackctl nginx-conf` prints the site for it"
    yield "files", f"{_short(str(config.state_dir), config)} in {config.project}"
    yield "logs", "stackctl logs -f"


def _web(site: Site, facts: Facts) -> str:
    if site.web == DIRECT:
        return ""
    version = ".".join(map(str, facts.nginx.version)) + " " if facts.nginx and site.web == PRIVATE else ""
    return f"nginx {version}-> "


def _short(path: str, config: Config) -> str:
    """A path as seen from the project."""
    return path.removeprefix(config.project + "/")
