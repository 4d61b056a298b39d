"""The commands that bring a stack up, change it as it runs, and take it down."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from stack.cli import complete
from stack.cli.options import Listen, Nginx, NoNginx, Server, Set, Workers, overrides
from stack.cli.project import existing, find, introduce, talk, usage_error, warn

if TYPE_CHECKING:
    from stack.config import Override


def init(
    directory: Annotated[Path, typer.Argument(help="The project's directory.", metavar="DIR")] = Path(),
) -> None:
    """Write a stack.toml with the app that is found in DIR.

    Example: stackctl init && stackctl up
    """
    from stack.operations.init import init as operation

    done = operation(existing(directory))
    talk(f"wrote {done.path}")
    if done.app:
        talk(f"found {done.app.framework}: {done.app.module}:{done.app.expression} ({done.app.found_by})")
        talk("next: stackctl up")
    elif done.problem:
        talk(f"but there is no app yet: {done.problem.message}")
        talk("next: set [app] target in it, then stackctl up")


def up(
    workers: Workers = None,
    server: Server = None,
    listen: Listen = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once the site answers.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Reload when a file is saved; for development.")] = False,
    nginx: Nginx = None,
    no_nginx: NoNginx = False,
    sets: Set = None,
) -> None:
    """Start the stack, and prove that the site answers.

    The app server comes first, then nginx, then a request over every hop. In the foreground the logs follow, and
    Ctrl-C ends it. The flags are remembered by the running stack.

    With --watch it reloads whenever its code or its settings are saved; what is broken is said, and the old serves on.

    Example: stackctl up --workers 4 --listen 8080 --detach
    """
    from stack.operations import up as operation

    flags = overrides(workers, server, listen, nginx, ["site.web=none", *(sets or ())] if no_nginx else sets)
    if watch:
        talk("warning: --watch is for development\n  -> Elsewhere `stackctl reload` brings what is meant to be served.")
    if not detach:
        operation.up_in_the_foreground(find(), flags, introduce, watched=watch)
    plan = operation.up_detached(find(), flags, introduce, watched=watch)
    talk(plan.welcome())
    print(plan.url)


def down() -> None:
    """End the stack; requests in hand are finished first.

    Example: stackctl down
    """
    from stack.operations import running

    talk("stopped" if running.down(find()) else "nothing was running")


def reload(
    prove: Annotated[bool, typer.Option("--prove", help="Ask the site all the while, and report.")] = False,
    paths: Annotated[
        list[str] | None,
        typer.Option(
            "--path", help="With --prove: asked for, instead of [[smoke]] or health; may be repeated.", metavar="PATH"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --prove: print the report as JSON.")] = False,
    workers: Workers = None,
    server: Server = None,
    listen: Listen = None,
    nginx: Nginx = None,
    sets: Set = None,
) -> None:
    """Bring changed code and settings; no request is lost.

    The new code must answer before it gets requests; if it does not, the old serves on and this command fails.

    --prove makes requests through the web server before, during and after: how many, how many failed, how long they
    took, when the new code took over. Exit code 4 if one failed. The JSON is described in docs/commands.md.

    Example: stackctl reload --prove --path / --path /api/facts
    """
    from stack.operations import running

    flags = overrides(workers, server, listen, nginx, sets)
    if prove:
        _prove(flags, paths or (), as_json=as_json)
    if paths or as_json:
        raise usage_error("--path and --json belong to --prove", "stackctl reload --prove --json")
    prepared, changes = running.reload(find(), flags)
    warn(prepared)
    for change in changes:
        talk(change)


def _prove(flags: list[Override], paths: Sequence[str], *, as_json: bool) -> NoReturn:
    from stack.cli import proof as reports
    from stack.operations.prove import prove

    proof = prove(find(), flags, paths, talk, reports.progress)
    if proof.prepared:
        warn(proof.prepared)
    for change in proof.changes:
        talk(change)
    print(json.dumps(reports.as_json(proof), indent=2) if as_json else reports.table(proof))
    sys.stdout.flush()
    if proof.failed:
        talk(reports.failures(proof))
    if proof.refusal is not None:
        raise proof.refusal
    raise typer.Exit(proof.exit_code)


def watch(
    pid_file: Annotated[
        Path | None, typer.Option(help="Written once it watches; in the runtime directory.", hidden=True)
    ] = None,
) -> None:
    """Reload the running stack whenever its code or its settings are saved; for development.

    Python files, templates, env files and stack.toml; not what is hidden, static or in a virtual environment. A broken
    save is said with its traceback, and the old code serves on. `stackctl up --watch` does the same by itself.

    Example: stackctl watch
    """
    from stack.operations.watch import watch as operation

    operation(find(), talk, pid_file)


def scale(
    workers: Annotated[int, typer.Argument(help="Processes that run the app.", min=1, metavar="N")],
    name: Annotated[
        str,
        typer.Option("--app", help="Which app, if there are several.", metavar="NAME", autocompletion=complete.apps),
    ] = "",
) -> None:
    """Run the app in N processes from now on; no request is lost.

    A new generation of so many takes over, with the code as it is now. The number is remembered by the running stack.

    Example: stackctl scale 8
    """
    from stack.config import Override
    from stack.operations import running

    key = f"apps.{name}.server.workers" if name else "server.workers"
    prepared, changes = running.reload(find(), [Override(key, str(workers), "scale")], fresh=False)
    warn(prepared)
    for change in changes or ("nothing to do: it runs so many",):
        talk(change)


def rollback() -> None:
    """Let the generation before serve again, at once.

    For that it must be running still: `keep_previous = true` under [server] parks it at each reload. What served until
    now is parked in its place, so another rollback takes that back. The files are as they are: mend them, then reload.

    Example: stackctl rollback
    """
    from stack.operations import running

    for change in running.rollback(find()):
        talk(change)
