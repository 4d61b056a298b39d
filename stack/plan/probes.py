"""The probes of the sites: a request over each hop that a client's takes, the innermost first."""

from __future__ import annotations

from collections.abc import Iterable

from stack.config import Config, Site
from stack.desired import Probe
from stack.facts import Facts, Static
from stack.limits import Limits
from stack.plan.sites import host, reachable
from stack.webservers import DIRECT, EXTERNAL, PRIVATE, WebServer
from stack.webservers.front import Front

__all__ = ["probes"]

CALLED = {PRIVATE: "nginx", EXTERNAL: "the nginx of this machine", DIRECT: "the app server itself"}

NOT_PASSED_ON = {
    PRIVATE: "The app server answers but nginx does not pass it on: see `stackctl logs nginx`.",
    EXTERNAL: "Is it running, and has it loaded the site? See `stackctl nginx-conf` and nginx's own error.log.",
    DIRECT: "The app server answers on its private socket only: see `stackctl logs`.",
}


def probes(config: Config, facts: Facts, limits: Limits, front: Front, web: WebServer) -> Iterable[Probe]:
    """For each site: what the web server has loaded, the app, a static file."""
    witness = web.witness(front)
    for name, site in config.sites.items():
        app = config.apps[config.app_of(site)]
        if witness:
            title = f"{CALLED[site.web]} has loaded {name} as it should be"
            yield _probe(site, "web", title, witness, web.loading(front, facts), status=204)
        within = limits.apps[config.app_of(site)].read_timeout
        yield _probe(
            site, "site", f"{name} through {CALLED[site.web]}", app.health, NOT_PASSED_ON[site.web], within=within
        )
        yield from (_static(name, site, each) for each in facts.statics[name] if each.sample)


def _static(name: str, site: Site, static: Static) -> Probe:
    return _probe(
        site,
        "static",
        f"static file of {name}, from {CALLED[site.web]}",
        static.sample,
        f"{static.folder} must be readable: every directory above it needs x for the user of {CALLED[site.web]}.",
        status=200,
        header="etag",
        pattern=r'(W/)?"[0-9a-f]+-[0-9a-f]+"',
    )


def _probe(  # noqa: PLR0913 - a probe is many things
    site: Site,
    hop: str,
    title: str,
    path: str,
    hint: str,
    *,
    within: float = 5.0,
    status: int = 0,
    header: str = "",
    pattern: str = "",
) -> Probe:
    """A GET to the site as a client makes it."""
    return Probe(
        hop=hop,
        title=title,
        protocol="http",
        address=reachable(site.listen[0]),
        host=host(site),
        path=path,
        hint=hint,
        within=within,
        status=status,
        header=header,
        pattern=pattern,
        ours=site.web != EXTERNAL,
    )
