"""The WSGI server that comes with stackctl, `stack/wsgi`. It takes its settings as arguments and needs no file."""

from __future__ import annotations

from pathlib import Path

import stack
from stack.config import App
from stack.desired import File
from stack.facts import AppFacts

PROTOCOLS: tuple[str, ...] = ("uwsgi", "http")
STOP_SIGNAL = "TERM"
ORPHAN_SIGNAL = "INT"

# Run by path, not as a module: the project's interpreter need not have stackctl installed, and should not see what is.
BOOTSTRAP = Path(stack.__file__).parent / "wsgi" / "bootstrap.py"


def files(name: str, app: App, workers: int) -> tuple[File, ...]:  # noqa: ARG001 - the shape of an app server
    """None."""
    return ()


def argv(name: str, app: App, facts: AppFacts, entry_directory: str, workers: int) -> tuple[str, ...]:  # noqa: ARG001
    """The server's command line; it knows the protocol by a connection's first byte."""
    return (
        facts.python.path,
        str(BOOTSTRAP),
        "stackctl_entry:application",
        *("--pythonpath", entry_directory),
        *("--bind", "unix:{socket}"),
        *("--workers", str(workers)),
        *("--threads", str(app.server.threads)),
        *("--backlog", str(app.server.backlog)),
        *("--timeout", f"{app.server.timeout:g}"),
        *("--stop-within", f"{app.server.stop_within:g}"),
    )
