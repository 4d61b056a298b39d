"""Which program serves the app, where the app server is not the bundled one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.facts.interpreter import Interpreter

__all__ = ["ServerProgram", "find_server"]

VERSION = re.compile(r"\d+(?:\.\d+)+(?:-[\w.]+)?")  # uWSGI says 2.0.31 or 2.0.21-debian, gunicorn a sentence around it


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """An app server's binary: absolute path, and version as it says it.

    `venv` is the project's, if the program lies outside it and would not find what is installed there.
    """

    path: str
    version: str
    venv: str = ""


def find_server(name: str, interpreter: Interpreter, environ: Mapping[str, str]) -> ServerProgram | None:
    """The program of that name: beside the app's Python, so in the project's venv, then on PATH."""
    directory = Path(interpreter.path).parent
    if os.access(directory / name, os.X_OK):
        version = _installed(name, directory)
        return ServerProgram(str(directory / name), version) if version else _asked(str(directory / name), "")
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None:
        return None
    venv = directory.parent if (directory.parent / "pyvenv.cfg").is_file() else ""
    return _asked(os.path.abspath(found), str(venv))  # noqa: PTH100 - links are kept


def _installed(name: str, directory: Path) -> str:
    """The version of a Python program as its installer has noted it, "" if that is not clear.

    The program itself would import all that it has first, at each command.
    """
    found = list(directory.parent.glob(f"lib/python3*/site-packages/{name}-*.dist-info"))
    version = found[0].name.removesuffix(".dist-info").rpartition("-")[2] if len(found) == 1 else ""
    return version if VERSION.fullmatch(version) else ""


def _asked(path: str, venv: str) -> ServerProgram | None:
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = VERSION.search(done.stdout)
    return ServerProgram(path, said[0], venv) if said and done.returncode == 0 else None
