"""Works out what shall be: `plan(config, facts)`. Pure: same input, same output; no clock, no disk, no process."""

from __future__ import annotations

from collections.abc import Iterable

from stack.config import Config, Override
from stack.desired import Listener, Logs, Plan
from stack.facts import Facts
from stack.plan import apps
from stack.plan.apps import engine, protocol, workers
from stack.plan.limits import chains, limits
from stack.plan.probes import probes
from stack.plan.sites import url, web_server
from stack.plan.summary import summary
from stack.webservers import Front, Upstream
from stack.webservers import front as front_shapes

__all__ = ["chains", "engine", "front", "limits", "plan", "protocol", "url", "web_server", "workers"]


def plan(config: Config, facts: Facts, overrides: Iterable[Override] = ()) -> Plan:
    """The files to write, the services to keep running, the probes that prove they work.

    Raises:
        ConfigError: a setting names something that stackctl does not have, or a value cannot be rendered.
    """
    whole, web, numbers = front(config, facts), web_server(config), limits(config, facts)
    app_files = {name: apps.files(config, facts, numbers, name) for name in config.apps}
    app_services = [apps.service(config, facts, numbers, name, files) for name, files in app_files.items()]
    web_files = web.files(whole, facts)
    listen = dict.fromkeys(address for site in config.sites.values() for address in site.listen) if web.KEPT else ()
    return Plan(
        name=config.name,
        project=config.project,
        state_dir=str(config.state_dir),
        runtime_dir=facts.runtime_dir,
        url=url(next(iter(config.sites.values()))),
        files=(*(file for files in app_files.values() for file in files), *web_files),
        checks=web.checks(facts),
        listeners=tuple(Listener(address, numbers.public_backlog) for address in listen),
        services=(*app_services, *web.services(whole, facts, web_files)),
        probes=(
            *(each.probe for each in app_services if each.probe is not None),
            *probes(config, facts, numbers, whole, web),
        ),
        summary=tuple(summary(config, facts)),
        overrides=tuple((each.key, each.value, each.origin) for each in overrides),
        user=_user(facts),
        group=facts.web_group,
        logs=Logs(config.logs.format, config.logs.size, config.logs.keep),
    )


def front(config: Config, facts: Facts) -> Front:
    """The stack as its web servers see it."""
    numbers = limits(config, facts)
    upstreams = {
        name: Upstream(
            name,
            apps.link(config, facts, name),
            apps.protocol(app),
            numbers.apps[name].read_timeout,
            apps.keeps_alive(app),
        )
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
                max_body=numbers.max_body[name],
                statics=facts.statics[name],
                app=upstreams[config.app_of(site)],
            )
            for name, site in config.sites.items()
        ),
        max_header=numbers.line,
        shutdown=numbers.shutdown,
        stop_within=numbers.web_stop,
        user=_user(facts) or (facts.user if facts.is_root else ""),
        group=next((app.group for app in facts.apps.values()), ""),
        log_format=config.logs.format,
    )


def _user(facts: Facts) -> str:
    return next((app.user for app in facts.apps.values()), "")
