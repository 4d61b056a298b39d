"""The options that many commands have, and the settings that they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stack.cli import complete

if TYPE_CHECKING:
    from stack.config import Override

__all__ = ["Json", "Listen", "Nginx", "NoNginx", "Server", "Set", "Workers", "overrides"]

Workers = Annotated[int | None, typer.Option("--workers", "-w", help="Processes that run the app.", metavar="N")]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        help="App server: bundled, uwsgi or gunicorn.",
        metavar="NAME",
        autocompletion=complete.servers,
    ),
]
Listen = Annotated[
    list[str] | None, typer.Option("--listen", "-l", help="Public address, 8000 or 127.0.0.1:8000.", metavar="ADDR")
]
NoNginx = Annotated[bool, typer.Option("--no-nginx", help="No web server: the app server faces the clients.")]
Nginx = Annotated[str | None, typer.Option("--nginx", help="The nginx binary to use.", metavar="PATH")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting, server.threads=8; may be repeated.",
        metavar="KEY=VALUE",
        autocompletion=complete.settings,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def overrides(
    workers: int | None, server: str | None, listen: list[str] | None, nginx: str | None, sets: list[str] | None
) -> list[Override]:
    """The settings that these options stand for."""
    from stack.config import Override, parse_set

    flags = [parse_set(each) for each in sets or ()]
    if workers is not None:
        flags.append(Override("server.workers", str(workers), "--workers"))
    if server is not None:
        flags.append(Override("server.engine", json.dumps(server), "--server"))
    if listen:
        flags.append(Override("site.listen", json.dumps(listen), "--listen"))
    if nginx is not None:
        flags.append(Override("programs.nginx", json.dumps(str(Path(nginx).absolute())), "--nginx"))
    return flags
