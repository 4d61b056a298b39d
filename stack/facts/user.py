"""Whom an app runs as when root starts it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
from pathlib import Path
from typing import Any

from stack.config import AUTO, Config
from stack.errors import ConfigError
from stack.facts.interpreter import Interpreter

__all__ = ["as_user", "find_user", "group", "home"]

SERVING_USER = "www-data"
MAY_USE = 'test -r "$1" -a -x "$1" -a -r "$2" -a -x "$3"'
CAN_USE = "import os, sys; os.listdir(sys.argv[1]); open(sys.argv[2]).close()"


def find_user(config: Config, name: str, directory: str, python: Interpreter, script: str) -> str:
    """Whom the app of that name runs as when we are root; "" as we are.

    It must be able to read `directory` and `script` and to run the interpreter.

    Raises:
        ConfigError: the configured user does not exist, or cannot.
    """
    if os.geteuid() != 0:
        return ""
    app = config.apps[name]
    if app.user != AUTO:
        return _configured(app.user, directory, python, script)
    owner = Path(config.project).stat().st_uid
    wanted = _name_of(owner) if owner != 0 else ""
    for each in (wanted, SERVING_USER):
        if each and _known(each) and not _hindrance(each, directory, python, script):
            return each
    return ""


def _configured(name: str, directory: str, python: Interpreter, script: str) -> str:
    if not _known(name):
        raise ConfigError(f"[app] user = {name!r}: this machine has no such user", f"Make it: useradd --system {name}")
    why = "" if name == "root" else _hindrance(name, directory, python, script)
    if why:
        raise ConfigError(
            f"[app] user = {name!r} cannot use the project: {why}",
            _opened(name, (directory, python.path, script))
            or f"Let {name} read {directory}, {python.path} and {script}, or name another user.",
        )
    return name


def _opened(name: str, paths: tuple[str, ...]) -> str:
    """How to let this user through the outermost directory that is closed to it, such as a 0700 home; "" if none is."""
    entry = pwd.getpwnam(name)
    groups = os.getgrouplist(name, entry.pw_gid)
    for path in paths:
        for directory in reversed(Path(path).parents):
            found = directory.stat()
            bit = (
                stat.S_IXUSR
                if found.st_uid == entry.pw_uid
                else stat.S_IXGRP
                if found.st_gid in groups
                else stat.S_IXOTH
            )
            if not found.st_mode & bit:
                return (
                    f"{directory} is closed to {name} (mode {stat.S_IMODE(found.st_mode):04o}): chmod o+x {directory}\n"
                    "or move the project to a place such as /srv, or name another user."
                )
    return ""


def _hindrance(name: str, directory: str, python: Interpreter, script: str) -> str:
    """What keeps this user from running the interpreter in the project with this script; "" if nothing does.

    The paths are absolute: a working directory is entered before the user is changed, so it proves nothing. A shell is
    asked first, for it takes a fifth of the time; a Python has the words, and the last one.
    """
    words = ["/bin/sh", "-c", MAY_USE, "sh", directory, script, python.path]
    if not _failure(words, name):
        return ""
    return _failure([python.path, "-ESsc", CAN_USE, directory, script], name)


def _failure(argv: list[str], name: str) -> str:
    """The last that is said by a program that fails as this user; "" if it does not."""
    try:
        done = subprocess.run(
            argv, **as_user(name), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else _last_line(done.stderr.decode(errors="replace"))


def as_user(name: str) -> dict[str, Any]:
    """The arguments of subprocess that make the child this user; none for ""."""
    if not name:
        return {}
    entry = pwd.getpwnam(name)
    groups = os.getgrouplist(name, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def home(name: str) -> dict[str, str]:
    """The variables that tell a process whom it runs as; none for ""."""
    return {"HOME": pwd.getpwnam(name).pw_dir, "USER": name, "LOGNAME": name} if name else {}


def group(name: str) -> str:
    """The group of a user, whose name need not be the user's; "" for ""."""
    try:
        return grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name if name else ""
    except KeyError:  # a group that has no name
        return ""


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _name_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a directory from another machine
        return ""


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2] or "no reason given"
