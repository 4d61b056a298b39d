"""`run`, and what runs before a reload: a command in an app's interpreter, environment, directory, as its user."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stack.config import Config
from stack.errors import MissingProgramError, StackError, UsageError
from stack.facts import environment, find_interpreter
from stack.facts.user import as_user, find_user, home
from stack.operations.prepare import load

__all__ = ["before_reload", "run"]


@dataclass(frozen=True, slots=True)
class World:
    """Where an app lives: whoever runs something there finds the app's Python first on PATH."""

    directory: str
    environment: dict[str, str]
    user: dict[str, Any]


def run(project: Path, name: str, command: Sequence[str]) -> NoReturn:
    """Becomes the command; `name` is the app's, "" for the only one.

    Raises:
        UsageError: there is no such app, or several.
        MissingProgramError: there is no such command.
    """
    config = load(project).config
    if name not in config.apps and (name or len(config.apps) > 1):
        raise UsageError(f"which app? There is {', '.join(config.apps)}.", "stackctl run --app NAME COMMAND")
    there = _world(config, name or next(iter(config.apps)))
    os.chdir(there.directory)
    if there.user:
        os.setgroups(there.user["extra_groups"])
        os.setgid(there.user["group"])
        os.setuid(there.user["user"])
    try:
        os.execvpe(command[0], list(command), there.environment)
    except OSError as error:
        raise MissingProgramError(
            f"{command[0]} cannot be run: {error.strerror}",
            f"It is looked for in the app's interpreter first: {there.environment['PATH'].partition(':')[0]}",
        ) from None


def before_reload(config: Config) -> list[str]:
    """Runs each app's `before_reload`, to its end; returns what was run.

    Raises:
        StackError: one of them failed; what it said is the detail.
    """
    done = []
    for name, app in config.apps.items():
        if not app.before_reload:
            continue
        there = _world(config, name)
        argv = shlex.split(app.before_reload)
        try:
            ended = subprocess.run(
                argv,
                cwd=there.directory,
                env=there.environment,
                **there.user,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise StackError(
                f"[app] before_reload: {argv[0]} cannot be run: {error.strerror}", "Nothing was reloaded."
            ) from None
        if ended.returncode:
            raise StackError(
                f"[app] before_reload failed with {ended.returncode}, so nothing was reloaded: {app.before_reload}",
                f"Try it: stackctl run {app.before_reload}",
                ended.stdout.strip(),
            )
        done.append(app.before_reload)
    return done


def _world(config: Config, name: str) -> World:
    python = find_interpreter(config, name, os.environ)
    directory = str(config.path(config.apps[name].directory))
    user = find_user(config, name, directory, python, python.path)
    programs = str(Path(python.path).parent)
    variables = environment(config, name, os.environ) | home(user)
    variables["PATH"] = f"{programs}:{variables.get('PATH', os.defpath)}"
    if Path(programs).parent.joinpath("pyvenv.cfg").is_file():
        variables["VIRTUAL_ENV"] = str(Path(programs).parent)
    return World(directory, variables, as_user(user))
