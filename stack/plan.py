"""Works out what shall be: `plan(config, facts)`. Pure: same input, same output; no clock, no disk, no process."""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from stack.appservers import APP_SERVERS, AppServer
from stack.config import AUTO, App, Config, Override, Site
from stack.desired import Check, File, Listener, Plan, Probe, Service
from stack.errors import ConfigError
from stack.facts import AppFacts, Facts, Static
from stack.render import render
from stack.webservers import WEB_SERVERS, Front, Upstream
from stack.webservers import front as shapes

__all__ = ["front", "plan", "protocol", "workers"]

READ_TIMEOUT_MARGIN = 5.0
"""Seconds by which the web server outwaits the app server, so that the one who knows why gives up first."""

Module = TypeVar("Module")


def plan(config: Config, facts: Facts, overrides: Iterable[Override] = ()) -> Plan:
    """The files to write, the services to keep running, the probes that prove they work.

    Raises:
        ConfigError: a setting names something that stackctl does not have, or a value cannot be rendered.
    """
    whole = front(config, facts)
    names = dict.fromkeys(site.web for site in config.sites.values())
    webs = [_known(name, WEB_SERVERS, "[site] web") for name in names]
    files: list[File] = []
    services: list[Service] = []
    checks: list[Check] = []
    for name, app in config.apps.items():
        server = _engine(app)
        files += [_entry(name, facts.apps[name]), *server.files(name, app, workers(app, facts))]
        services.append(_service(config, facts, name))
    for web in webs:
        files += web.files(whole, facts)
        checks.append(web.check(facts))
        services.append(web.service(whole, facts))
    listen = dict.fromkeys(address for site in config.sites.values() for address in site.listen)
    return Plan(
        name=config.name,
        project=config.project,
        state_dir=str(config.state_dir),
        runtime_dir=facts.runtime_dir,
        url=url(next(iter(config.sites.values()))),
        files=tuple(files),
        checks=tuple(checks),
        listeners=tuple(Listener(address) for address in listen),
        services=tuple(services),
        probes=tuple(_probes(config, facts)),
        summary=tuple(_summary(config, facts)),
        overrides=tuple((each.key, each.value, each.origin) for each in overrides),
        user=_user(facts),
    )


def front(config: Config, facts: Facts) -> Front:
    """The stack as its web servers see it."""
    upstreams = {
        name: Upstream(name, link(facts, name), protocol(app), app.server.timeout + READ_TIMEOUT_MARGIN)
        for name, app in config.apps.items()
    }
    return Front(
        name=config.name,
        state_dir=str(config.state_dir),
        runtime_dir=facts.runtime_dir,
        apps=tuple(upstreams.values()),
        sites=tuple(
            shapes.Site(
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


def protocol(app: App) -> str:
    """What web server and app server speak on this app's socket."""
    server = _engine(app)
    if app.server.protocol == AUTO:
        return server.PROTOCOLS[0]
    if app.server.protocol not in server.PROTOCOLS:
        raise ConfigError(
            f"[server] protocol: the app server {app.server.engine} does not speak {app.server.protocol!r}",
            f"It speaks {' and '.join(server.PROTOCOLS)}.",
        )
    return app.server.protocol


def workers(app: App, facts: Facts) -> int:
    """How many processes serve the app: as told, else one for each CPU, and at least two."""
    return max(2, facts.cpus) if app.server.workers == AUTO else app.server.workers


def link(facts: Facts, name: str) -> str:
    """Where the web server connects: a link to the newest generation's own socket, which stands beside it."""
    return f"{facts.runtime_dir}/sockets/{name}.sock"


def url(site: Site) -> str:
    """Where a browser finds the site."""
    address = site.listen[0]
    if not site.server_names or "*" in site.server_names[0] or site.server_names[0] == "_":
        return f"http://{reachable(address)}/".replace(":80/", "/")
    return f"http://{site.server_names[0]}:{address.rpartition(':')[2]}/".replace(":80/", "/")


def reachable(address: str) -> str:
    """An address that one can connect to, for one to listen on."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}".replace(" ", "")  # noqa: S104


def _engine(app: App) -> AppServer:
    return _known(app.server.engine, APP_SERVERS, "[server] engine")


def _known(name: str, modules: Mapping[str, Module], setting: str) -> Module:
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=1)
        known = f"There is: {', '.join(modules)}."
        raise ConfigError(
            f"{setting} = {name!r}: stackctl has none of that name", f"Did you mean {near[0]}?" if near else known
        )
    return modules[name]


def _user(facts: Facts) -> str:
    return next((app.user for app in facts.apps.values()), "")


def _entry_directory(name: str) -> str:
    return f"apps/{name}"


def _entry(name: str, app: AppFacts) -> File:
    text = render(
        "app/entry.py.j2",
        name=name,
        search_path=app.search_path,
        module=app.module,
        expression=app.expression,
        expression_name=re.split(r"[^\w]", app.expression, maxsplit=1)[0],
        plain=all(part.isidentifier() and not keyword.iskeyword(part) for part in app.module.split(".")),
    )
    return File(f"{_entry_directory(name)}/stackctl_entry.py", text)


def _service(config: Config, facts: Facts, name: str) -> Service:
    app, found = config.apps[name], facts.apps[name]
    server = _engine(app)
    sites = [site for site in config.sites.values() if config.app_of(site) == name]
    entry_directory = str(config.state_dir / _entry_directory(name))
    return Service(
        name=name,
        tier=0,
        argv=server.argv(name, app, found, entry_directory, workers(app, facts)),
        cwd=found.directory,
        env=dict(app.env),
        env_file=str(config.path(app.env_file)) if app.env_file else "",
        user=found.user,
        link=link(facts, name),
        probe=Probe(
            hop="app",
            title=f"app server of {name}",
            protocol=protocol(app),
            address="unix:" + link(facts, name),
            host=_host(sites[0]) if sites else "localhost",
            path=app.health,
            within=app.server.timeout,
            hint=f"See `stackctl logs {name}`. Another path may suit better: [app] health in stack.toml.",
        ),
        idle_within=shapes.IDLE_WITHIN if protocol(app) == "http" else 0.0,
        stop_signal=server.STOP_SIGNAL,
        orphan_signal=server.ORPHAN_SIGNAL,
        start_within=app.server.start_within,
        stop_within=app.server.stop_within,
    )


def _host(site: Site) -> str:
    """A Host header that the site answers to."""
    host, _, port = reachable(site.listen[0]).rpartition(":")
    name = next((each.replace("*.", "www.") for each in site.server_names if each != "_"), host)
    return name if port == "80" else f"{name}:{port}"


def _probes(config: Config, facts: Facts) -> Iterable[Probe]:
    for name in config.apps:
        probe = _service(config, facts, name).probe
        if probe is not None:
            yield probe
    for name, site in config.sites.items():
        app = config.apps[config.app_of(site)]
        yield Probe(
            hop="site",
            title=f"{name} through {site.web}",
            protocol="http",
            address=reachable(site.listen[0]),
            host=_host(site),
            path=app.health,
            within=app.server.timeout + READ_TIMEOUT_MARGIN,
            hint="The app server answers but the web server does not pass it on: see `stackctl logs nginx`.",
        )
        yield from (_static_probe(name, site, each) for each in facts.statics[name] if each.sample)


def _static_probe(name: str, site: Site, static: Static) -> Probe:
    return Probe(
        hop="static",
        title=f"static file of {name}, from {site.web}",
        protocol="http",
        address=reachable(site.listen[0]),
        host=_host(site),
        path=static.sample,
        status=200,
        header="etag",
        pattern=r'(W/)?"[0-9a-f]+-[0-9a-f]+"',
        hint=f"{site.web} must be able to read {static.folder}: every directory above it needs x for its user.",
    )


def _summary(config: Config, facts: Facts) -> Iterable[tuple[str, str]]:
    """What `up` says of the stack, in lines that fit a terminal."""
    version = ".".join(map(str, facts.nginx.version)) if facts.nginx else ""
    for key, site in config.sites.items():
        name = config.app_of(site)
        app, found = config.apps[name], facts.apps[name]
        count, threads = workers(app, facts), app.server.threads
        yield "site", url(site)
        yield "way", f"browser -> {site.web} {version} -> {app.server.engine} server -> {found.framework}"
        yield "hop", f"{protocol(app)} on the unix socket {name}.sock"
        yield "app", f"{found.module}:{found.expression}, run by {_short(found.python.path, config)}"
        yield "capacity", f"{count} workers x {threads} threads: {count * threads} requests at once"
        for static in facts.statics[key]:
            yield "static", f"{static.url}/ from {_short(static.folder, config)}, served by {site.web}"
    yield "files", f"{_short(str(config.state_dir), config)} in {config.project}"
    yield "logs", "stackctl logs -f"


def _short(path: str, config: Config) -> str:
    """A path as seen from the project."""
    return path.removeprefix(config.project + "/")
