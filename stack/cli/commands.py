"""The program: its own options, and its commands in the order in which `--help` lists them.

Each command imports what it needs when it runs, so that `--help` answers at once; and Typer is told of a command when
that one is asked for, since to look at the parameters of all of them is half of what many a command does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from stack import __version__
from stack.cli import bench, lifecycle, looking, printing, trying
from stack.cli.project import choose

__all__ = ["app"]

COMMANDS: dict[str, Callable[..., None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        lifecycle.init,
        lifecycle.up,
        lifecycle.down,
        lifecycle.reload,
        lifecycle.watch,
        lifecycle.scale,
        lifecycle.rollback,
        looking.status,
        looking.logs,
        printing.nginx_conf,
        printing.server_conf,
        printing.systemd_unit,
        printing.config,
        printing.explain,
        looking.diff,
        looking.health,
        trying.check,
        trying.run,
        trying.smoke,
        bench.bench,
    )
}
PASSES_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # what follows is another program's


@cache
def _command(name: str) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, context_settings=PASSES_ON if COMMANDS[name] is trying.run else None)(COMMANDS[name])
    return get_command(alone)


class _Commands(Mapping[str, Any]):
    """Typer's commands by name, each made when it is first looked at."""

    def __getitem__(self, name: str) -> Any:
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Program(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": _Commands()})


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    epilog="Start with: cd your-project; stackctl up",
)


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
    choose(project)
