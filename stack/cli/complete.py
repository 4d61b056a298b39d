"""What a shell offers for words that only stackctl knows. It never complains: somebody is typing.

A setting is offered with its value, `server.engine=bundled`: bash breaks words at `=`, and offers nothing behind one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from stack.errors import StackError

__all__ = ["apps", "contenders", "servers", "services", "settings", "topics"]

PLAIN = re.compile(r"[\w.,:/@%+-]*")  # needs no quotes in any shell


def settings(ctx: typer.Context) -> list[str]:
    """Every setting: once for each value that there is, where those are known, else with the value that holds."""
    from stack.cli.show import settings as rows

    found = _config(ctx)
    choices = _choices()
    offered: dict[str, None] = {}
    for key, keys, value in rows(found) if found else ():
        values = choices.get(key.rpartition(".")[2], [_word(value)])
        # Beside its own key, that of all apps: server.threads for apps.shop.server.threads.
        offered |= dict.fromkeys(f"{each}={value}" for each in (key, keys[-1]) for value in values)
    return list(offered)


def services(ctx: typer.Context) -> list[str]:
    """Who writes into the log."""
    return [*apps(ctx), "nginx", "stack", "access"]


def apps(ctx: typer.Context) -> list[str]:
    """The project's apps."""
    found = _config(ctx)
    return list(found.apps) if found else []


def servers() -> list[str]:
    """The app servers."""
    from stack.appservers import APP_SERVERS

    return list(APP_SERVERS)


def contenders() -> list[str]:
    """The app servers that can be measured."""
    from stack.operations.bench.contenders import CONTENDERS

    return [each.name for each in CONTENDERS]


def topics() -> list[str]:
    """What can be explained."""
    from stack.operations.explain import TOPICS

    return list(TOPICS)


def _config(ctx: typer.Context) -> Any:
    """The settings of the project; None where they cannot be read."""
    from stack.config import find_project
    from stack.operations import prepare

    named = ctx.find_root().params.get("project")
    try:
        return prepare.load(Path(named).absolute() if named else find_project(Path.cwd())).config
    except StackError:
        return None


def _choices() -> dict[str, list[str]]:
    """The values of those settings, by the last word of the key, that name a module of ours."""
    from stack.appservers import APP_SERVERS
    from stack.webservers import WEB_SERVERS

    protocols = dict.fromkeys(each for server in APP_SERVERS.values() for each in server.PROTOCOLS)
    return {"engine": list(APP_SERVERS), "web": list(WEB_SERVERS), "protocol": list(protocols)}


def _word(value: Any) -> str:
    """The value as `--set` takes it, if that is one plain word; else "", to be typed."""
    if isinstance(value, tuple):
        value = value[0] if len(value) == 1 else ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if PLAIN.fullmatch(text) else ""
