"""Works out what shall be: `plan(config, facts)`. Pure: same input, same output; no clock, no disk, no process."""

from __future__ import annotations

from collections.abc import Iterable

from stack.config import Config, Override
from stack.desired import Listener, Plan
from stack.errors import ConfigError
from stack.facts import Facts
from stack.plan import apps
from stack.plan.apps import protocol, workers
from stack.plan.known import known
from stack.plan.probes import READ_TIMEOUT_MARGIN, probes
from stack.plan.sites import url
from stack.plan.summary import summary
from stack.webservers import WEB_SERVERS, Front, Upstream, WebServer
from stack.webservers import front as front_shapes

__all__ = ["front", "plan", "protocol", "url", "web_server", "workers"]


def plan(config: Config, facts: Facts, overrides: Iterable[Override] = ()) -> Plan:
    """The files to write, the services to keep running, the probes that prove they work.

    Raises:
        ConfigError: a setting names something that stackctl does not have, or a value cannot be rendered.
    """
    whole, web = front(config, facts), web_server(config)
    listen = dict.fromkeys(address for site in config.sites.values() for address in site.listen) if web.KEPT else ()
    return Plan(
        name=config.name,
        project=config.project,
        state_dir=str(config.state_dir),
        runtime_dir=facts.runtime_dir,
        url=url(next(iter(config.sites.values()))),
        files=(*(file for name in config.apps for file in apps.files(config, facts, name)), *web.files(whole, facts)),
        checks=web.checks(facts),
        listeners=tuple(Listener(address) for address in listen),
        services=(*(apps.service(config, facts, name) for name in config.apps), *web.services(whole, facts)),
        probes=tuple(probes(config, facts, whole, web)),
        summary=tuple(summary(config, facts)),
        overrides=tuple((each.key, each.value, each.origin) for each in overrides),
        user=_user(facts),
        group=facts.web_group,
    )


def front(config: Config, facts: Facts) -> Front:
    """The stack as its web servers see it."""
    upstreams = {
        name: Upstream(name, apps.link(facts, name), apps.protocol(app), app.server.timeout + READ_TIMEOUT_MARGIN)
        for name, app in config.apps.items()
    }
    return Front(
        name=config.name,
        state_dir=str(config.state_dir),
        runtime_dir=facts.runtime_dir,
        apps=tuple(upstreams.values()),
        sites=tuple(
            front_shapes.Site(
                name=name,
                listen=site.listen,
                server_names=site.server_names,
                max_body=site.max_body,
                statics=facts.statics[name],
                app=upstreams[config.app_of(site)],
            )
            for name, site in config.sites.items()
        ),
        stop_within=max(app.server.stop_within for app in config.apps.values()),
        user=_user(facts) or (facts.user if facts.is_root else ""),
        group=next((app.group for app in facts.apps.values()), ""),
    )


def web_server(config: Config) -> WebServer:
    """What faces the clients: one thing for all the sites of a stack.

    Raises:
        ConfigError: the sites do not agree, or stackctl has no such web server.
    """
    names = dict.fromkeys(site.web for site in config.sites.values())
    found = [known(name, WEB_SERVERS, "[site] web") for name in names]
    if len(found) > 1:
        raise ConfigError(f"[site] web: the sites name {' and '.join(names)}", "One stack has one web server: choose.")
    return found[0]


def _user(facts: Facts) -> str:
    return next((app.user for app in facts.apps.values()), "")
