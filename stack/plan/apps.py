"""The apps: how each is loaded, started, asked and stopped."""

from __future__ import annotations

import keyword
import re

from stack.appservers import APP_SERVERS, PEERS, AppServer, Launch, tally
from stack.config import AUTO, BUNDLED, App, Config, Site
from stack.desired import File, Probe, Service, digest
from stack.errors import ConfigError
from stack.facts import AppFacts, Facts
from stack.limits import AppLimits, Limits
from stack.plan.known import known
from stack.plan.sites import host
from stack.render import render
from stack.webservers import DIRECT
from stack.webservers.front import IDLE_WITHIN

__all__ = ["engine", "files", "keeps_alive", "link", "protocol", "service", "workers"]


def files(config: Config, facts: Facts, limits: Limits, name: str) -> tuple[File, ...]:
    """The app's entry, what does for it what the app server does not, and the app server's own files."""
    app = config.apps[name]
    text = render("app/proxied.py.j2", name=name, protocol=protocol(app))
    proxied = File(f"{_entry_directory(name)}/stackctl_proxied.py", text)
    return (
        _entry(name, facts.apps[name]),
        *((proxied,) if _is_proxied(app) else ()),
        *(_guarded(name, app, limits.apps[name]) if engine(app).LEAVE_SIGNAL else ()),
        *engine(app).files(_launch(config, facts, limits, name)),
    )


def protocol(app: App) -> str:
    """What web server and app server speak on this app's socket."""
    server = engine(app)
    if app.server.protocol == AUTO:
        return server.PROTOCOLS[0]
    if app.server.protocol not in server.PROTOCOLS:
        raise ConfigError(
            f"[server] protocol: the app server {app.server.engine} does not speak {app.server.protocol!r}",
            f"It speaks {', '.join(server.PROTOCOLS)}.",
        )
    return app.server.protocol


def keeps_alive(app: App) -> bool:
    """Whether the web server keeps connections to the app server: not if a parked one would go on getting requests."""
    return protocol(app) == "http" and engine(app).KEEPS_ALIVE and not app.server.keep_previous


def workers(app: App, facts: Facts) -> int:
    """How many processes serve the app: as told, else one for each CPU, and at least two."""
    return max(2, facts.cpus) if app.server.workers == AUTO else app.server.workers


def link(config: Config, facts: Facts, name: str) -> str:
    """Where the web server connects: a link to the newest generation's own socket, which stands beside it.

    One for each protocol, so that a web server which still speaks the old one finds what understands it.
    """
    return f"{facts.runtime_dir}/sockets/{name}.{protocol(config.apps[name])}.sock"


def engine(app: App) -> AppServer:
    """The module of the app server. That it may be chosen is for a rule to say: `bench` measures peers, too."""
    return PEERS.get(app.server.engine) or known(app.server.engine, APP_SERVERS, "[server] engine")


def _is_proxied(app: App) -> bool:
    """Whether the app server leaves the facts about the client where they came, or believes the client."""
    return app.server.engine != BUNDLED


def _inner(app: App) -> str:
    """The module that has the app, with the facts about the client in their places."""
    return "stackctl_proxied" if _is_proxied(app) else "stackctl_entry"


def _guarded(name: str, app: App, limits: AppLimits) -> tuple[File, ...]:
    text = render(
        "app/guarded.py.j2",
        name=name,
        inner=_inner(app),
        timeout=limits.timeout,
        kill_after=limits.kill - limits.timeout,
        leave_signal=engine(app).LEAVE_SIGNAL,
    )
    directory = _entry_directory(name)
    return (File(f"{directory}/stackctl_guarded.py", text), tally.file(name, directory))


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
        flask=app.framework.partition(" ")[0] == "Flask",
        plain=all(part.isidentifier() and not keyword.iskeyword(part) for part in app.module.split(".")),
    )
    return File(f"{_entry_directory(name)}/stackctl_entry.py", text)


def _sites_of(config: Config, name: str) -> dict[str, Site]:
    """The sites on which this app answers."""
    return {key: site for key, site in config.sites.items() if config.app_of(site) == name}


def _public(config: Config, name: str) -> tuple[str, ...]:
    """The public addresses that the app server takes itself."""
    sites = [site for site in _sites_of(config, name).values() if site.web == DIRECT]
    return tuple(dict.fromkeys(address for site in sites for address in site.listen))


def _launch(config: Config, facts: Facts, limits: Limits, name: str) -> Launch:
    app, sites = config.apps[name], _sites_of(config, name)
    return Launch(
        name=name,
        app=app,
        facts=facts.apps[name],
        entry_directory=str(config.state_dir / _entry_directory(name)),
        module=f"{'stackctl_guarded' if engine(app).LEAVE_SIGNAL else _inner(app)}:application",
        protocol=protocol(app),
        program=facts.servers.get(name),
        workers=workers(app, facts),
        limits=limits.apps[name],
        socket_mode=0o660 if facts.web_group else 0o600,
        public=len(_public(config, name)),
        statics=tuple(dict.fromkeys(each for key in sites for each in facts.statics[key] if not each.private)),
    )


def service(config: Config, facts: Facts, limits: Limits, name: str, files: tuple[File, ...]) -> Service:
    """The command that serves the app, behind its link; it reads these files."""
    app, found = config.apps[name], facts.apps[name]
    server = engine(app)
    sites = list(_sites_of(config, name).values())
    return Service(
        name=name,
        tier=0,
        argv=server.argv(_launch(config, facts, limits, name)),
        cwd=found.directory,
        env=dict(app.env),
        env_file=str(config.path(app.env_file)) if app.env_file else "",
        user=found.user,
        listeners=_public(config, name),
        link=link(config, facts, name),
        probe=Probe(
            hop="app",
            title=f"app server of {name}",
            protocol=protocol(app),
            address="unix:" + link(config, facts, name),
            host=host(sites[0]) if sites else "localhost",
            path=app.health,
            within=limits.apps[name].timeout,
            hint=f"See `stackctl logs {name}`. Another path may suit better: [app] health in stack.toml.",
        ),
        reads=digest(files),
        idle_within=IDLE_WITHIN if keeps_alive(app) else 0.0,
        keep_previous=app.server.keep_previous,
        tally_variable=tally.VARIABLE if server.LEAVE_SIGNAL else "",
        stop_word=server.STOP_WORD,
        stop_when_idle=not server.DRAINS,
        stop_signal=server.STOP_SIGNAL,
        orphan_signal=server.ORPHAN_SIGNAL,
        start_within=app.server.start_within,
        stop_within=limits.apps[name].drain,
    )
