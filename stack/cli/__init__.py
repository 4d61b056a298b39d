"""The command line: parse arguments, call one operation, print, choose the exit code. Nothing is decided here.

Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 bad configuration, 4 unhealthy, 5 a needed
program is missing, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command and ends the process with its exit code (Typer ends it for usage and Ctrl-C).

    SIGTERM and a closed terminal are a Ctrl-C too: a start that is cut short is undone, and its processes end.

    Raises:
        KeyboardInterrupt: interrupted where Typer could not take it.
    """
    from stack import interrupts
    from stack.errors import StackError, told

    interrupts.listen()
    _open_standard_streams()
    try:
        from stack.cli.commands import app

        try:
            app(prog_name="stackctl")
        finally:
            sys.stdout.flush()  # here, where it can still be told that nobody reads
    except Exception as error:
        interrupts.check()  # pydantic, for one, makes an error of its own of a Ctrl-C that comes while it is imported
        if isinstance(error, StackError):
            print(told(error.message, error.detail, error.hint), file=sys.stderr)
            sys.exit(error.exit_code)
        if isinstance(error, BrokenPipeError):
            # Whoever read our output has gone, `stackctl logs | head` for one; nothing to say, and nobody to say it to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        raise


def _open_standard_streams() -> None:
    """Started with some of 0-2 closed, the next file or socket would get their number, and our talk would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for as long as we live
