"""The limits of a stack, worked out as chains from few settings. Pure: config and facts in, numbers out.

A request meets several programs, each with limits of its own. Where they are set apart from each other, the wrong one
gives up first, and nobody is told why. So they are chains, each link made from the one before:

`time`     the inner program gives up first, for it knows why: request < worker < web server < drain < systemd.
`header`   grows inward: a hop adds to what it passes on, and what nginx has let in must not be refused behind it.
`body`     shrinks inward: nginx lets in all that the app takes, and the app decides, with an error page of its own.
`backlog`  as many connections wait as the kernel holds: it cuts a larger number without a word.

`limits` has the numbers, which everybody reads from here; `chains` tells of each number who enforces it, where it comes
from and why. A chain that the settings contradict does not hold (`Chain.holds`); stack/rules.py refuses it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from stack.config import AUTO, Config
from stack.facts import Facts

__all__ = ["AppLimits", "Chain", "Limit", "Limits", "Way", "chains", "limits", "longest_line"]

KILL_AFTER: Final = 1.0
"""Seconds from the timeout to the kill of a worker that has not noticed: app servers look about once a second."""
READ_AFTER: Final = 5.0
"""Seconds by which the web server outwaits the app server, so that the one who knows why gives up first."""
DRAIN_AFTER: Final = 10.0
"""Seconds by which `stop_within` is longer than the timeout, unless it is set."""
SHUTDOWN_AFTER: Final = 1.0
"""Seconds that an old nginx has, after the longest drain, to pass the last answers on."""
KILL_WEB_AFTER: Final = 5.0
"""Seconds by which the supervisor outwaits the drain before it kills nginx, which has closed what it held by then."""
STOPPED_AFTER: Final = 10.0
"""Seconds for the kills themselves and the supervisor's own end, before systemd loses patience with it."""

HEAD_LINES: Final = 4
"""Long lines that a head may have: the number in nginx's own default of `large_client_header_buffers`."""
HEAD_FIRST: Final = 1024
"""Bytes of a head that nginx takes before those lines: its own default of `client_header_buffer_size`."""
HOP_ADDS: Final = 4096
"""Bytes that a hop adds at most: its own variables (about 1000), and 7 for each of 400 fields (HTTP_ and two sizes)."""
BUFFER: Final = 65535
"""Bytes that an app server has room for: a packet of uwsgi, a record of FastCGI and uWSGI's buffer have no more."""

BODY: Final = 32 * 1024**2
"""Bytes of the largest upload, where nothing else is said; nginx's own 1m refuses a photo."""
BODY_ROOM: Final = 1024**2
"""Bytes by which the web server's limit exceeds the app's: what is a little too large gets the app's error page."""

BACKLOG: Final = 1024
"""Connections that may wait for the app server; more would wait longer than a visitor does."""
PUBLIC_BACKLOG: Final = 511
"""Connections that may wait for nginx: its own default."""


@dataclass(frozen=True, slots=True)
class AppLimits:
    """The numbers of one app: seconds, bytes, connections.

    `timeout`, `kill`: a request without progress is given up, its worker killed at the latest. `read_timeout`: so long
    the web server waits for the next byte. `drain`: what is in hand may take so long when the app server stops.
    `field`: the longest line of a head, as it comes over HTTP. `packet`: the largest head, as it comes over the hop;
    `buffer`: what the app server has room for. `max_body`: the largest body that is let in. `backlog` of its sockets.
    """

    timeout: float
    kill: float
    read_timeout: float
    drain: float
    field: int
    packet: int
    buffer: int
    max_body: int
    backlog: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The numbers of a stack. `apps` by their names; `max_body` by the sites' names.

    `line`: the longest line of a head; `head`: the largest head, that comes in. `public_backlog`: of the sockets that
    clients connect to. `shutdown`: an old nginx closes what it still holds; `web_stop`: it is killed. `systemd_stop`:
    what a unit's TimeoutStopSec must allow, for the web server stops before the apps do.
    """

    apps: dict[str, AppLimits]
    max_body: dict[str, int]
    line: int
    head: int
    public_backlog: int
    shutdown: float
    web_stop: float
    systemd_stop: float


@dataclass(frozen=True, slots=True)
class Way:
    """What stands before one app: programs by their names, and which option of each enforces which limit.

    A limit that is not among the options of a program is not enforced by it.
    """

    web: str
    web_options: Mapping[str, str]
    protocol: str
    server: str
    server_options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Limit:
    """One link of a chain. `value` in `unit`: "s", "bytes" or "connections".

    Enforced by the `key` (directive, flag, system call) of a `program`. `origin` says what it is made from; `keys` are
    the dotted settings that decided, those of the one app or site first. `why`: what this hop adds to the one before.
    """

    name: str
    value: float
    unit: str
    program: str
    key: str
    origin: str
    keys: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Limits in their order, of one app or site: its name is `of`. `rule` says what holds between each and the next."""

    topic: str
    of: str
    limits: tuple[Limit, ...]

    @property
    def rule(self) -> str:
        """What holds, and what for."""
        return RULES[self.topic][1]

    @property
    def holds(self) -> bool:
        """Whether each link and the next are as the rule wants them."""
        is_right = RULES[self.topic][0]
        return all(is_right(one.value, other.value) for one, other in pairwise(self.limits))


RULES: Final[Mapping[str, tuple[Callable[[float, float], bool], str]]] = {
    "time": (operator.lt, "each waits longer than the one above, which knows why it gives up"),
    "header": (operator.le, "grows inward: what was let in has room in all that is behind"),
    "body": (operator.ge, "shrinks inward: what the app takes is let in, and it decides last"),
    "backlog": (operator.le, "no more than the kernel holds"),
}


def limits(config: Config, facts: Facts, ways: Mapping[str, Way]) -> Limits:
    """All the numbers. They are what the settings say, contradicted or not."""
    line = config.stack.max_header
    bodies = {name: _max_body(config, facts, name) for name in config.sites}
    apps = {name: _app(config, facts, name, bodies, way) for name, way in ways.items()}
    drain = max(each.drain for each in apps.values())
    has_web = any("shutdown" in way.web_options for way in ways.values())
    is_direct = not any(way.web_options for way in ways.values())
    web_stop = drain + KILL_WEB_AFTER if has_web else 0.0
    backlog = max(each.backlog for each in apps.values()) if is_direct else min(PUBLIC_BACKLOG, facts.somaxconn)
    return Limits(
        apps=apps,
        max_body=bodies,
        line=line,
        head=_head(line),
        public_backlog=backlog,
        shutdown=drain + SHUTDOWN_AFTER,
        web_stop=web_stop,
        systemd_stop=web_stop + drain + STOPPED_AFTER,
    )


def _app(config: Config, facts: Facts, name: str, bodies: Mapping[str, int], way: Way) -> AppLimits:
    server, line = config.apps[name].server, config.stack.max_header
    return AppLimits(
        timeout=server.timeout,
        kill=server.timeout + KILL_AFTER,
        read_timeout=server.timeout + READ_AFTER,
        drain=server.timeout + DRAIN_AFTER if server.stop_within == AUTO else server.stop_within,
        field=line,
        packet=_head(line) + HOP_ADDS + _url_again(line, way.protocol),
        buffer=BUFFER,
        max_body=max((bodies[key] for key, site in config.sites.items() if config.app_of(site) == name), default=BODY),
        backlog=min(BACKLOG, facts.somaxconn) if server.backlog == AUTO else server.backlog,
    )


def _head(line: int) -> int:
    return HEAD_LINES * line + HEAD_FIRST


def _url_again(line: int, protocol: str) -> int:
    """But over HTTP, the URL goes twice: as it came, and as path and query."""
    return 0 if protocol == "http" else line


def longest_line(protocol: str) -> int:
    """The largest `max_header`, in whole kilobytes, whose heads fit over the hop."""
    copies = HEAD_LINES + _url_again(1, protocol)
    return (BUFFER - HEAD_FIRST - HOP_ADDS) // copies // 1024 * 1024


def _max_body(config: Config, facts: Facts, name: str) -> int:
    """As told, else what is usual, and more than the app takes."""
    site = config.sites[name]
    most = facts.apps[config.app_of(site)].max_content_length or 0
    return max(BODY, most + BODY_ROOM) if site.max_body == AUTO else site.max_body


# What is told of them.


def chains(config: Config, facts: Facts, ways: Mapping[str, Way]) -> Iterator[Chain]:
    """The chains of every app and site, the numbers from `limits`."""
    found = limits(config, facts, ways)
    for name, way in ways.items():
        yield Chain("time", name, tuple(_time(config, found, name, way)))
    for name, way in ways.items():
        yield Chain("header", name, tuple(_header(found, name, way)))
    for name, site in config.sites.items():
        yield Chain("body", name, tuple(_body(config, facts, found, name, ways[config.app_of(site)])))
    yield from _backlog(config, facts, found, ways)


def _time(config: Config, found: Limits, name: str, way: Way) -> Iterator[Limit]:
    app, web, server = found.apps[name], way.web_options, way.server_options
    timeout, keys = "[server] timeout", _keys(config, name, "timeout")
    yield Limit(
        "request",
        app.timeout,
        "s",
        way.server,
        server["timeout"],
        timeout,
        keys,
        "so long a request may go without progress",
    )
    yield Limit(
        "worker",
        app.kill,
        "s",
        way.server,
        server["kill"],
        f"{timeout} + {KILL_AFTER:g}",
        keys,
        "to log what the request was stuck in; then its worker is killed",
    )
    if "read_timeout" in web:
        yield Limit(
            "read",
            app.read_timeout,
            "s",
            way.web,
            web["read_timeout"],
            f"{timeout} + {READ_AFTER:g}",
            keys,
            "the app server, which knows why, gives up before the web server",
        )
    origin = f"{timeout} + {DRAIN_AFTER:g}"
    if config.apps[name].server.stop_within != AUTO:
        origin, keys = "[server] stop_within", _keys(config, name, "stop_within")
    yield Limit(
        "drain",
        app.drain,
        "s",
        way.server,
        server["drain"],
        origin,
        keys,
        "an app server that stops answers all that is still waited for",
    )
    longest = "drain" if len(found.apps) == 1 else "longest drain"
    if "shutdown" in web:
        yield Limit(
            "shutdown",
            found.shutdown,
            "s",
            way.web,
            web["shutdown"],
            f"{longest} + {SHUTDOWN_AFTER:g}",
            (),
            "an old web server passes the last answers on",
        )
        yield Limit(
            "web stop",
            found.web_stop,
            "s",
            "supervisor",
            "SIGKILL",
            f"{longest} + {KILL_WEB_AFTER:g}",
            (),
            "it closes by itself what it still holds; then it is killed",
        )
    both = f"web stop + {longest}" if found.web_stop else longest
    yield Limit(
        "systemd",
        found.systemd_stop,
        "s",
        "systemd",
        "TimeoutStopSec",
        f"{both} + {STOPPED_AFTER:g}",
        (),
        "web server, apps and supervisor end one after the other",
    )


def _header(found: Limits, name: str, way: Way) -> Iterator[Limit]:
    app, web, server = found.apps[name], way.web_options, way.server_options
    line, keys = "[stack] max_header", ("stack.max_header",)
    if "head" in web:
        yield Limit(
            "line",
            found.line,
            "bytes",
            way.web,
            web["head"],
            line,
            keys,
            "one line, the URL's or a field, fits one buffer: else 414 or 400",
        )
        if "field" in server:
            yield Limit(
                "field",
                app.field,
                "bytes",
                way.server,
                server["field"],
                "max_header",
                keys,
                "over HTTP a field is passed on as it is",
            )
        yield Limit(
            "head",
            found.head,
            "bytes",
            way.web,
            web["head"],
            f"max_header x {HEAD_LINES} + {HEAD_FIRST}",
            keys,
            f"{HEAD_LINES} such lines, after a first small buffer: else 400",
        )
        twice = _url_again(1, way.protocol)
        yield Limit(
            "packet",
            app.packet,
            "bytes",
            "hop",
            way.protocol,
            f"head + {'max_header + ' * twice}{HOP_ADDS}",
            keys,
            "the hop's own fields" + ", names and sizes, the URL once again" * twice,
        )
    yield Limit(
        "buffer",
        app.buffer,
        "bytes",
        way.server,
        server["buffer"],
        "the most in a packet",
        (),
        "room for whatever is passed on: else 414 or 431",
    )


def _body(config: Config, facts: Facts, found: Limits, name: str, way: Way) -> Iterator[Limit]:
    app = facts.apps[config.app_of(config.sites[name])]
    keys: tuple[str, ...] = (f"{_site(config, name)}.max_body",)
    value, origin = found.max_body[name], "[site] max_body"
    if config.sites[name].max_body == AUTO and value > BODY:
        origin, keys = f"the app's own + {BODY_ROOM}", ()
    if "max_body" in way.web_options:
        yield Limit(
            "web body",
            value,
            "bytes",
            way.web,
            way.web_options["max_body"],
            origin,
            keys,
            "a larger one is answered 413, and no worker is kept busy",
        )
    elif not way.web_options and "max_body" in way.server_options:
        yield Limit(
            "server body",
            value,
            "bytes",
            way.server,
            way.server_options["max_body"],
            origin,
            keys,
            "a larger one is answered 413 before the app is called",
        )
    if app.max_content_length is not None:
        yield Limit(
            "app body",
            app.max_content_length,
            "bytes",
            app.framework,
            "MAX_CONTENT_LENGTH",
            "the app's own",
            (),
            "the app decides last, and has an error page of its own",
        )


def _backlog(config: Config, facts: Facts, found: Limits, ways: Mapping[str, Way]) -> Iterator[Chain]:
    kernel = Limit(
        "kernel",
        facts.somaxconn,
        "connections",
        "Linux",
        "net.core.somaxconn",
        "this machine",
        (),
        "a longer queue is cut to this without a word",
    )
    if any("shutdown" in way.web_options for way in ways.values()):
        public = Limit(
            "public",
            found.public_backlog,
            "connections",
            "supervisor",
            "listen(2)",
            f"at most {PUBLIC_BACKLOG}",
            (),
            "clients wait here until nginx accepts them",
        )
        yield Chain("backlog", "public", (public, kernel))
    for name, way in ways.items():
        origin, keys = f"at most {BACKLOG}", _keys(config, name, "backlog")
        if config.apps[name].server.backlog != AUTO:
            origin = "[server] backlog"
        own = Limit(
            "app",
            found.apps[name].backlog,
            "connections",
            way.server,
            way.server_options["backlog"],
            origin,
            keys,
            "requests wait here until a thread is free",
        )
        yield Chain("backlog", name, (own, kernel))


def _keys(config: Config, name: str, key: str) -> tuple[str, ...]:
    """The dotted settings that may decide for this app, its own first."""
    prefix = "app" if len(config.apps) == 1 and name == "app" else f"apps.{name}"
    return f"{prefix}.server.{key}", f"server.{key}"


def _site(config: Config, name: str) -> str:
    return "site" if len(config.sites) == 1 and name == "site" else f"sites.{name}"
