"""The command that measures the app under each app server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from stack.cli import complete
from stack.cli.options import Json, Nginx, Set, Workers, overrides
from stack.cli.project import existing, find, talk, warn

CLEAR = "\r\x1b[K"  # the line, of ECMA-48


def bench(
    paths: Annotated[
        list[str] | None,
        typer.Option("--path", help="What to ask for; may be repeated. Unless given, /.", metavar="PATH"),
    ] = None,
    servers: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            "-s",
            help="Only this app server; may be repeated. Unless given, all that the project has installed.",
            metavar="NAME",
            autocompletion=complete.contenders,
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="From nginx to all of them. Unless given, what suits each best.", metavar="NAME")
    ] = "",
    workers: Workers = None,
    threads: Annotated[int | None, typer.Option(help="Threads in each worker.", min=1, max=1024, metavar="N")] = None,
    connections: Annotated[
        int, typer.Option("--connections", "-c", help="Requests at a time.", min=1, max=1000, metavar="N")
    ] = 16,
    seconds: Annotated[int, typer.Option(help="Load in each turn.", min=1, max=600, metavar="N")] = 4,
    rounds: Annotated[int, typer.Option(help="Turns of each app server.", min=1, max=100, metavar="N")] = 3,
    bare: Annotated[
        bool, typer.Option("--bare", help="Without what stackctl puts between other app servers and the app.")
    ] = False,
    as_json: Json = False,
    svg: Annotated[Path | None, typer.Option(help="Draw a picture, too.", metavar="FILE")] = None,
    nginx: Nginx = None,
    sets: Set = None,
) -> None:
    """Measure the app behind nginx under each app server, turn by turn.

    bundled, uwsgi, gunicorn-gthread, gunicorn-sync, granian, waitress: those that are installed where the app runs (the
    last two only to compare with). Medians over the rounds of requests/s, p50, p99, CPU time per request of app server
    and nginx, memory; in the second line of each, how many times the first one's. wrk makes the load.

    In a place aside and on a free port, as smoke does. Exit code 4 if a request failed or was not answered 2xx; 5
    without wrk. What to believe of it, and the JSON: docs/commands.md.

    Example: stackctl bench --path / --path /api/facts --workers 2 --svg bench.svg
    """
    from stack.cli import picture, standings
    from stack.config import Override
    from stack.operations.bench import Wanted
    from stack.operations.bench import bench as operation
    from stack.operations.bench.figures import doubts
    from stack.operations.smoke import chosen
    from stack.operations.visitors import request

    if svg is not None:
        existing(svg.absolute().parent)
    flags = overrides(workers, None, None, nginx, sets)
    if threads is not None:
        flags.append(Override("server.threads", str(threads), "--threads"))
    asks = [request(each, "", "") for each in chosen((), paths or ["/"])]
    wanted = Wanted(asks, connections, seconds, rounds, bare=bare)
    report = operation(find(), flags, servers or (), protocol, wanted, warn, _progress)
    _progress("")
    if svg is not None:
        svg.write_text(picture.drawn(report), "utf-8")
    print(json.dumps(standings.as_json(report), indent=2) if as_json else standings.table(report))
    sys.stdout.flush()
    for each in doubts(report.series):
        talk(f"warning: {each}")


def _progress(text: str) -> None:
    """A line each; on a terminal, one that changes."""
    if sys.stderr.isatty():
        print(f"{CLEAR}{text}", end="", file=sys.stderr, flush=True)
    elif text:
        talk(text)
