"""The commands that look at a running stack."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stack.cli import complete
from stack.cli.options import Json
from stack.cli.project import find, talk

if TYPE_CHECKING:
    pass


def status(as_json: Json = False) -> None:
    """Show services, generations, restarts and their reasons.

    Exit code 0 if everything serves, else 4. The JSON is described in docs/commands.md.

    Example: stackctl status --json
    """
    from stack.cli import show
    from stack.operations import running, workers

    found = running.find(find())
    if as_json:
        print(json.dumps(workers.with_workers(found) if found else None, indent=2))
    elif found:
        print(show.status(workers.with_workers(found)))
    else:
        talk("no stack of this project is running; `stackctl up` starts it")
    raise typer.Exit(0 if found and all(each["state"] == "serving" for each in found.status["services"]) else 4)


def logs(
    name: Annotated[
        str,
        typer.Argument(
            help="app, nginx, stack, access; else all but access.",
            metavar="NAME",
            autocompletion=complete.services,
        ),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    last: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.", min=0, metavar="N")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show what the services wrote.

    Files that were set aside count, and `-f` goes on in the next. The JSON is described in docs/logs.md.

    Example: stackctl logs -f app
    """
    from stack.operations import prepare, running
    from stack.operations.logs import lines

    project = find()
    found = running.find(project)
    log = found.plan.log if found else prepare.load(project).config.state_dir / "log" / "stack.log"
    for line in lines(log, name, last, follow=follow, as_json=as_json):
        sys.stdout.write(line)
        sys.stdout.flush()


def diff(
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 if anything differs.")] = False,
    as_json: Json = False,
) -> None:
    """Show what `up` or `reload` would change.

    Files against the disk, services against those that run; with web = "external", also what that nginx has loaded
    against what `nginx-conf` prints.

    Example: stackctl diff --exit-code
    """
    from stack.operations.compare import differences

    found = differences(find())
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
        raise typer.Exit(1 if found and exit_code else 0)
    for each in found:
        talk(each.what)
        sys.stdout.write(each.text)
        for line in each.hint.splitlines():
            talk(f"  -> {line}")
    if not found:
        talk("nothing would change but the code, which `reload` loads again")
    raise typer.Exit(1 if found and exit_code else 0)


def health(as_json: Json = False) -> None:
    """Try every hop; say which one is broken and what to do.

    From the configuration and the code over processes and sockets to the site and a static file as a visitor gets them.
    Exit code 0, or 4.

    Example: stackctl health
    """
    from stack.cli import show
    from stack.operations.diagnose import diagnose

    findings = []
    for found in diagnose(find()):
        findings.append(found)
        if not as_json:
            print(show.finding(found))
    if as_json:
        print(json.dumps([each.as_json() for each in findings], indent=2))
    raise typer.Exit(0 if all(each.passed for each in findings) else 4)
