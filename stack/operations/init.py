"""`init`: a stack.toml for a project, with what was found in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stack import config as settings
from stack.errors import StackError
from stack.facts import AppFacts, look
from stack.render import render

__all__ = ["Initialized", "init"]


@dataclass(frozen=True, slots=True)
class Initialized:
    """The file that was written, the app that was found, or why none was."""

    path: Path
    app: AppFacts | None
    problem: StackError | None


def init(directory: Path) -> Initialized:
    """Writes `stack.toml` in this directory; an app that cannot be found is no obstacle.

    Raises:
        StackError: there is a configuration already, or the directory cannot be written.
    """
    path = directory / settings.FILE
    loaded = settings.load(directory)
    if loaded.file is not None:
        raise StackError(f"{loaded.file} is there already", "It is yours: nothing was changed. `stackctl up` uses it.")
    app, problem = None, None
    try:
        app = look(loaded.config, os.environ).apps["app"]
    except StackError as error:
        problem = error
    text = render(
        "init/stack.toml.j2",
        name=loaded.config.name,
        target=f"{app.module}:{app.expression}" if app else "",
        env_file=".env" if (directory / ".env").is_file() else "",
    )
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise StackError(f"{path} cannot be written: {error.strerror}") from error
    return Initialized(path, app, problem)
