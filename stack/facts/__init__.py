"""What this machine is, looked at once, as frozen data. The only code that examines the machine for a plan.

Each topic has a module that looks and small functions that only read text: `nginx`, `interpreter`, `machine`, `app`,
`user`, `static`. `discover` is the one that imports the project's code, in a child process of its own interpreter.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from stack.config import BUNDLED, Config
from stack.facts.access import Identity, closed, of_group, of_user
from stack.facts.app import AppFacts, environment, find_app
from stack.facts.interpreter import Interpreter, find_interpreter
from stack.facts.machine import find_cpus, find_somaxconn, runtime_dir, runtime_dirs
from stack.facts.nginx import Nginx, find_nginx, find_package_manager
from stack.facts.server import ServerProgram, find_server
from stack.facts.static import Static, find_statics
from stack.facts.web import find_groups, find_layout, find_web_group

__all__ = [
    "AppFacts",
    "Facts",
    "Interpreter",
    "Machine",
    "Nginx",
    "ServerProgram",
    "Static",
    "environment",
    "find_interpreter",
    "look",
    "look_at_machine",
    "runtime_dir",
    "runtime_dirs",
]


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that need no import of an app. `nginx_looked` is where nginx was looked for."""

    user: str
    is_root: bool
    cpus: int
    somaxconn: int
    runtime_dir: str
    nginx: Nginx | None
    nginx_looked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts(Machine):
    """All the facts. `user` is whom stackctl runs as, `cpus` those that may be used.

    `apps` and `statics` go by the config's names, of apps and of sites. `web_group` is the group of a web server that
    somebody else runs, where there is one in the config; `nginx_layout` the folder that nginx here has its sites in;
    `groups` those that we are in; `package_manager` what nginx can be installed with, if it is one that we know;
    `closed` what keeps the apps or the web server from the stack's own directories, in words; `servers` the program of
    each app's app server, where there is one of its name.
    """

    apps: dict[str, AppFacts]
    statics: dict[str, tuple[Static, ...]]
    web_group: str = ""
    nginx_layout: str = ""
    groups: tuple[str, ...] = ()
    package_manager: str = ""
    closed: tuple[str, ...] = ()
    servers: dict[str, ServerProgram | None] = field(default_factory=dict)


def look_at_machine(config: Config, environ: Mapping[str, str]) -> Machine:
    """The facts that need no import of an app.

    Raises:
        ConfigError: the configured runtime directory is too long.
        MissingProgramError: the configured nginx is none.
    """
    nginx, looked = find_nginx(config, environ)
    return Machine(
        _user(), os.geteuid() == 0, find_cpus(), find_somaxconn(), runtime_dir(config, environ), nginx, looked
    )


def look(config: Config, environ: Mapping[str, str], meanwhile: Callable[[], None] = lambda: None) -> Facts:
    """All the facts; imports each app once, in a process of its own.

    That takes longest: `meanwhile` is called while it goes on, for each app.

    Raises:
        ConfigError: what the config names is not there, or an app cannot be found or imported.
        MissingProgramError: the configured nginx is none.
        StackError: importing an app takes too long, or ends its process.
    """
    machine = look_at_machine(config, environ)
    apps = {
        name: find_app(config, name, find_interpreter(config, name, environ), environ, meanwhile)
        for name in config.apps
    }
    web_group = find_web_group(config)
    return Facts(
        user=machine.user,
        is_root=machine.is_root,
        cpus=machine.cpus,
        somaxconn=machine.somaxconn,
        runtime_dir=machine.runtime_dir,
        nginx=machine.nginx,
        nginx_looked=machine.nginx_looked,
        apps=apps,
        statics=find_statics(config, apps, _reader(apps, web_group)),
        web_group=web_group,
        nginx_layout=find_layout(),
        groups=find_groups(),
        package_manager=find_package_manager(),
        servers={
            name: find_server(config.apps[name].server.engine, each.python, environ)
            for name, each in apps.items()
            if config.apps[name].server.engine != BUNDLED
        },
        closed=tuple(_closed(config, machine.runtime_dir, {each.user for each in apps.values()} - {""}, web_group)),
    )


def _closed(config: Config, runtime_dir: str, users: set[str], web_group: str) -> Iterator[str]:
    """In `state_dir` is what an app server loads, in `runtime_dir` the sockets between it and the web server."""
    apps = [of_user(each) for each in sorted(users)]
    everybody = [*apps, of_group(web_group)] if web_group else apps
    for key, path, visitors in (("state_dir", str(config.state_dir), apps), ("runtime_dir", runtime_dir, everybody)):
        yield from (f"[stack] {key}: {said}" for each in visitors if (said := closed(path, each)))


def _reader(apps: Mapping[str, AppFacts], web_group: str) -> Identity:
    """Who reads static files: the external web server, or our own, which runs as the apps do."""
    return of_group(web_group) if web_group else of_user(next((each.user for each in apps.values()), ""))


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # containers run as numbers that have no name
        return str(os.geteuid())
