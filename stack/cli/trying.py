"""The commands that try something out: a check, a command in the app's world, the whole life of a stack."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stack.cli import complete
from stack.cli.options import Json, Listen, Nginx, Server, Set, Workers, overrides
from stack.cli.project import existing, find, introduce, talk, warn

if TYPE_CHECKING:
    pass


def check(
    workers: Workers = None, server: Server = None, listen: Listen = None, nginx: Nginx = None, sets: Set = None
) -> None:
    """Check all that `up` would check, and start nothing.

    Settings, the import of the app, the rules between them, `nginx -t`, and the right to listen. Exit code 0, 3, or 5
    for a missing program.

    Example: stackctl check && stackctl reload
    """
    from stack.operations.check import check as operation

    prepared = operation(find(), overrides(workers, server, listen, nginx, sets))
    warn(prepared)
    talk(prepared.plan.welcome())


def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", metavar="COMMAND")],
    name: Annotated[
        str,
        typer.Option("--app", help="Which app, if there are several.", metavar="NAME", autocompletion=complete.apps),
    ] = "",
) -> None:
    """Run a command in the app's interpreter and environment.

    In its directory, as its user, with its env file; `python` is the project's.

    Example: stackctl run flask db upgrade
    """
    from stack.operations.run import run as operation

    operation(find(), name, command)


def smoke(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Asked for; else what [[smoke]] in stack.toml lists.", metavar="PATH")
    ] = None,
    as_json: Json = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report, too.", metavar="FILE")] = None,
    workers: Workers = None,
    server: Server = None,
    nginx: Nginx = None,
    sets: Set = None,
) -> None:
    """Prove a deployment: up, health, paths, a reload under load, down.

    In a place aside and on a free port: a stack that runs is not touched, and nothing is left, interrupted or not. With
    web = "external", through that nginx if it has loaded the site and no stack of the project runs.
    Exit code 0, or 4 with what failed. Under GitHub Actions, failures are annotations.

    Example: stackctl smoke --junit smoke.xml / /api/facts
    """
    from stack.cli import report as reports
    from stack.operations.smoke import smoke as operation

    if junit is not None:
        existing(junit.absolute().parent)
    report = operation(find(), overrides(workers, server, None, nginx, sets), paths or (), introduce, talk)
    if junit is not None:
        junit.write_bytes(reports.junit(report))
    print(json.dumps(reports.as_json(report), indent=2) if as_json else reports.table(report))
    sys.stdout.flush()
    if report.failed:
        on_github = os.environ.get("GITHUB_ACTIONS") == "true"
        text = reports.failures(report)
        talk(reports.said_by_others(text) if on_github else text)
        for each in reports.github(report) if on_github else ():
            talk(each)
    raise typer.Exit(report.exit_code)
