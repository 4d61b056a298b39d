"""The commands. Each imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from stack import __version__
from stack.cli import complete

if TYPE_CHECKING:
    from stack.config import Override
    from stack.operations.prepare import Prepared

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    epilog="Start with: cd your-project; stackctl up",
)

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

_project: list[Path] = []


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"stackctl {__version__}")
        raise typer.Exit


@app.callback()
def _stackctl(
    project: Annotated[
        Path | None,
        typer.Option("--project", "-C", help="The project's directory; unless given, found from here upwards."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - eager: done before a command is missed
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """A Flask project behind nginx and a WSGI server, with one command."""
    _project[:] = [project] if project else []


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="The project's directory.", metavar="DIR")] = Path(),
) -> None:
    """Write a stack.toml with the app that is found in DIR.

    Example: stackctl init && stackctl up
    """
    from stack.operations.init import init as operation

    done = operation(_directory(directory))
    _talk(f"wrote {done.path}")
    if done.app:
        _talk(f"found {done.app.framework}: {done.app.module}:{done.app.expression} ({done.app.found_by})")
        _talk("next: stackctl up")
    elif done.problem:
        _talk(f"but there is no app yet: {done.problem.message}")
        _talk("next: set [app] target in it, then stackctl up")


@app.command()
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

    flags = _flags(workers, server, listen, nginx, ["site.web=none", *(sets or ())] if no_nginx else sets)
    if watch:
        _talk(
            "warning: --watch is for development\n  -> Elsewhere `stackctl reload` brings what is meant to be served."
        )
    if not detach:
        operation.up_in_the_foreground(_find(), flags, _introduce, watched=watch)
    plan = operation.up_detached(_find(), flags, _introduce, watched=watch)
    _talk(plan.welcome())
    print(plan.url)


@app.command()
def down() -> None:
    """End the stack; requests in hand are finished first.

    Example: stackctl down
    """
    from stack.operations import running

    _talk("stopped" if running.down(_find()) else "nothing was running")


@app.command()
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

    flags = _flags(workers, server, listen, nginx, sets)
    if prove:
        _prove(flags, paths or (), as_json=as_json)
    if paths or as_json:
        raise _usage_error("--path and --json belong to --prove", "stackctl reload --prove --json")
    prepared, changes = running.reload(_find(), flags)
    _warn(prepared)
    for change in changes:
        _talk(change)


def _prove(flags: list[Override], paths: Sequence[str], *, as_json: bool) -> NoReturn:
    from stack.cli import proof as reports
    from stack.operations.prove import prove

    proof = prove(_find(), flags, paths, _talk, reports.progress)
    if proof.prepared:
        _warn(proof.prepared)
    for change in proof.changes:
        _talk(change)
    print(json.dumps(reports.as_json(proof), indent=2) if as_json else reports.table(proof))
    sys.stdout.flush()
    if proof.failed:
        _talk(reports.failures(proof))
    if proof.refusal is not None:
        raise proof.refusal
    raise typer.Exit(proof.exit_code)


@app.command()
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

    operation(_find(), _talk, pid_file)


@app.command()
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
    prepared, changes = running.reload(_find(), [Override(key, str(workers), "scale")], fresh=False)
    _warn(prepared)
    for change in changes or ("nothing to do: it runs so many",):
        _talk(change)


@app.command()
def rollback() -> None:
    """Let the generation before serve again, at once.

    For that it must be running still: `keep_previous = true` under [server] parks it at each reload. What served until
    now is parked in its place, so another rollback takes that back. The files are as they are: mend them, then reload.

    Example: stackctl rollback
    """
    from stack.operations import running

    for change in running.rollback(_find()):
        _talk(change)


@app.command()
def status(as_json: Json = False) -> None:
    """Show services, generations, restarts and their reasons.

    Exit code 0 if everything serves, else 4. The JSON is described in docs/commands.md.

    Example: stackctl status --json
    """
    from stack.cli import show
    from stack.operations import running, workers

    found = running.find(_find())
    if as_json:
        print(json.dumps(workers.with_workers(found) if found else None, indent=2))
    elif found:
        print(show.status(workers.with_workers(found)))
    else:
        _talk("no stack of this project is running; `stackctl up` starts it")
    raise typer.Exit(0 if found and all(each["state"] == "serving" for each in found.status["services"]) else 4)


@app.command()
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

    project = _find()
    found = running.find(project)
    log = found.plan.log if found else prepare.load(project).config.state_dir / "log" / "stack.log"
    for line in lines(log, name, last, follow=follow, as_json=as_json):
        sys.stdout.write(line)
        sys.stdout.flush()


@app.command("nginx-conf")
def nginx_conf(
    workers: Workers = None, server: Server = None, listen: Listen = None, nginx: Nginx = None, sets: Set = None
) -> None:
    """Print the site for nginx, fit for any http block.

    Example: stackctl nginx-conf > /etc/nginx/sites-available/shop
    """
    prepared = _prepared(_flags(workers, server, listen, nginx, sets))
    sys.stdout.write(prepared.site_file())


@app.command("server-conf")
def server_conf(
    workers: Workers = None, server: Server = None, listen: Listen = None, nginx: Nginx = None, sets: Set = None
) -> None:
    """Print how the app server is started, and its files.

    Example: stackctl server-conf --workers 8
    """
    from stack.cli import show

    prepared = _prepared(_flags(workers, server, listen, nginx, sets))
    print(show.server_conf(prepared.plan, tuple(prepared.loaded.config.apps)))


@app.command("systemd-unit")
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

    prepared = _prepared(_flags(workers, server, listen, nginx, sets))
    printed = unit.socket if socket else unit.service
    sys.stdout.write(printed(prepared.plan, prepared.facts, unit.program(), for_user=user))


@app.command()
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

    loaded = prepare.load(_find(), _flags(workers, server, listen, nginx, sets))
    print(show.config_json(loaded) if as_json else show.config(loaded, origin=origin))


@app.command()
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
    found = operation(_prepared(_flags(workers, server, listen, nginx, sets)))
    print(json.dumps([each.as_json() for each in found], indent=2) if as_json else show.explained(found))


@app.command()
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

    found = differences(_find())
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
        raise typer.Exit(1 if found and exit_code else 0)
    for each in found:
        _talk(each.what)
        sys.stdout.write(each.text)
        for line in each.hint.splitlines():
            _talk(f"  -> {line}")
    if not found:
        _talk("nothing would change but the code, which `reload` loads again")
    raise typer.Exit(1 if found and exit_code else 0)


@app.command()
def health(as_json: Json = False) -> None:
    """Try every hop; say which one is broken and what to do.

    From the configuration and the code over processes and sockets to the site and a static file as a visitor gets them.
    Exit code 0, or 4.

    Example: stackctl health
    """
    from stack.cli import show
    from stack.operations.diagnose import diagnose

    findings = []
    for found in diagnose(_find()):
        findings.append(found)
        if not as_json:
            print(show.finding(found))
    if as_json:
        print(json.dumps([each.as_json() for each in findings], indent=2))
    raise typer.Exit(0 if all(each.passed for each in findings) else 4)


@app.command()
def check(
    workers: Workers = None, server: Server = None, listen: Listen = None, nginx: Nginx = None, sets: Set = None
) -> None:
    """Check all that `up` would check, and start nothing.

    Settings, the import of the app, the rules between them, `nginx -t`, and the right to listen. Exit code 0, 3, or 5
    for a missing program.

    Example: stackctl check && stackctl reload
    """
    from stack.operations.check import check as operation

    prepared = operation(_find(), _flags(workers, server, listen, nginx, sets))
    _warn(prepared)
    _talk(prepared.plan.welcome())


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
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

    operation(_find(), name, command)


@app.command()
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
        _directory(junit.absolute().parent)
    report = operation(_find(), _flags(workers, server, None, nginx, sets), paths or (), _introduce, _talk)
    if junit is not None:
        junit.write_bytes(reports.junit(report))
    print(json.dumps(reports.as_json(report), indent=2) if as_json else reports.table(report))
    sys.stdout.flush()
    if report.failed:
        on_github = os.environ.get("GITHUB_ACTIONS") == "true"
        text = reports.failures(report)
        _talk(reports.said_by_others(text) if on_github else text)
        for each in reports.github(report) if on_github else ():
            _talk(each)
    raise typer.Exit(report.exit_code)


def _find() -> Path:
    from stack.config import find_project

    return _directory(_project[0]) if _project else find_project(Path.cwd())


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise _usage_error(f"{path} is not a directory")
    return path.absolute()


def _usage_error(message: str, hint: str = "") -> Exception:
    from stack.errors import UsageError

    return UsageError(message, hint)


def _flags(
    workers: int | None, server: str | None, listen: list[str] | None, nginx: str | None, sets: list[str] | None
) -> list[Override]:
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


def _prepared(flags: list[Override]) -> Prepared:
    """A plan to print: with what the running stack was started with, if one runs; for this machine or another."""
    from stack.operations import prepare, running

    project = _find()
    found = running.find(project)
    prepared = (
        running.replan(project, found, flags, for_here=False)
        if found
        else prepare.prepare(project, flags, for_here=False)
    )
    for each in prepared.warnings:
        if each.kind is not None:
            _talk(f"warning: `up` would refuse this here: {each.message}\n  -> {each.hint}")
    return prepared


def _introduce(prepared: Prepared) -> None:
    _warn(prepared)
    names = ", ".join(f"{each.module}:{each.expression}" for each in prepared.facts.apps.values())
    _talk(f"starting {prepared.plan.name} ({names}) ...")


def _warn(prepared: Prepared) -> None:
    for each in prepared.warnings:
        _talk(f"warning: {each.message}\n  -> {each.hint}")


def _talk(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
