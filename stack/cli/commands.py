"""The program: its own options, and its commands in the order in which `--help` lists them.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stack import __version__
from stack.cli import bench, lifecycle, looking, printing, trying
from stack.cli.project import choose

__all__ = ["app"]

app = typer.Typer(
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


for command in (
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
):
    app.command()(command)
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(trying.run)
app.command()(trying.smoke)
app.command()(bench.bench)
