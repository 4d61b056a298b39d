"""The commands that print what stackctl has worked out, and change nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stack.cli import complete
from stack.cli.options import Json, Listen, Nginx, Server, Set, Workers, overrides
from stack.cli.project import find, prepared_for

if TYPE_CHECKING:
    pass


def nginx_conf(
    workers: Workers = None, server: Server = None, listen: Listen = None, nginx: Nginx = None, sets: Set = None
) -> None:
    """Print the site for nginx, fit for any http block.

    Example: stackctl nginx-conf > /etc/nginx/sites-available/shop
    """
    prepared = prepared_for(overrides(workers, server, listen, nginx, sets))
    sys.stdout.write(prepared.site_file())


def server_conf(
    workers: Workers = None, server: Server = None, listen: Listen = None, nginx: Nginx = None, sets: Set = None
) -> None:
    """Print how the app server is started, and its files.

    Example: stackctl server-conf --workers 8
    """
    from stack.cli import show

    prepared = prepared_for(overrides(workers, server, listen, nginx, sets))
    print(show.server_conf(prepared.plan, tuple(prepared.loaded.config.apps)))


def systemd_unit(
    socket: Annotated[bool, typer.Option("--socket", help="The unit of its public sockets instead.")] = False,
    user: Annotated[bool, typer.Option("--user", help="For the systemd of your user, not of the machine.")] = False,
    workers: Workers = None,
    server: Server = None,
    listen: Listen = None,
    nginx: Nginx = None,
    sets: Set = None,
) -> None:
    """Print the unit under which systemd keeps this stack.

    It starts the stack with the flags given here, or with those of the stack that runs. Its first lines say where it
    belongs and what to type then; docs/systemd.md says the rest.

    Example: stackctl systemd-unit > /etc/systemd/system/shop.service
    """
    from stack.operations import unit

    prepared = prepared_for(overrides(workers, server, listen, nginx, sets))
    printed = unit.socket if socket else unit.service
    sys.stdout.write(printed(prepared.plan, prepared.facts, unit.program(), for_user=user))


def config(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: Json = False,
    workers: Workers = None,
    server: Server = None,
    listen: Listen = None,
    nginx: Nginx = None,
    sets: Set = None,
) -> None:
    """Print every setting with its value.

    Precedence: flag > environment > file > default.

    Example: stackctl config --origin
    """
    from stack.cli import show
    from stack.operations import prepare

    loaded = prepare.load(find(), overrides(workers, server, listen, nginx, sets))
    print(show.config_json(loaded) if as_json else show.config(loaded, origin=origin))


def explain(
    topic: Annotated[
        str, typer.Argument(help="What to explain: limits.", metavar="TOPIC", autocompletion=complete.topics)
    ],
    as_json: Json = False,
    workers: Workers = None,
    server: Server = None,
    listen: Listen = None,
    nginx: Nginx = None,
    sets: Set = None,
) -> None:
    """Explain why a number is what it is.

    TOPIC limits: the chains of timeouts, header sizes, body sizes and backlogs from the visitor to the app. For each:
    the value, who enforces it, where it comes from, and what it adds.

    Example: stackctl explain limits --set server.timeout=60
    """
    from stack.cli import show
    from stack.operations.explain import explain as operation
    from stack.operations.explain import known

    known(topic)
    found = operation(prepared_for(overrides(workers, server, listen, nginx, sets)))
    print(json.dumps([each.as_json() for each in found], indent=2) if as_json else show.explained(found))
