"""Which Python runs the app: the project's, not ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.config import AUTO, Config
from stack.errors import ConfigError

__all__ = ["Interpreter", "candidates", "find_interpreter"]

OLDEST = (3, 10)  # that what runs beside the app is written for
OURS = "the Python that runs stackctl"
CONFIGURED = "[app] python"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python: absolute path, version such as (3, 11, 7), and what named it.

    The path is not resolved: a venv's `bin/python` is a link out of the venv.
    """

    path: str
    version: tuple[int, ...]
    origin: str


def find_interpreter(config: Config, name: str, environ: Mapping[str, str]) -> Interpreter:
    """The interpreter of the app of that name.

    Raises:
        ConfigError: it is missing, does not run, or is older than Python 3.10.
    """
    path, origin = _chosen(config.project, config.apps[name].python, environ)
    if path == sys.executable:
        return Interpreter(path, tuple(sys.version_info[:3]), origin)
    try:
        version = _version(path)
    except PermissionError as error:
        raise ConfigError(
            f"{origin}: {path} may not be run by this user: {error.strerror}", _fix_permission(path, origin)
        ) from error
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"{origin}: the Python there does not run: {path}: {why}", _fix(path, origin)) from error
    fix = _fix(path, origin)
    if version < OLDEST:
        said, oldest = (".".join(map(str, each)) for each in (version, OLDEST))
        raise ConfigError(f"{origin}: {path} is Python {said}; {oldest} or newer is needed", fix)
    return Interpreter(path, version, origin)


def _chosen(project: str, wanted: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The path of an interpreter and what named it."""
    if wanted != AUTO:
        return _configured(project, wanted, environ), CONFIGURED
    for origin, directory in _venvs(project, environ):
        python = _python_of(directory)
        if directory and os.path.lexists(python):  # a link to a Python that is gone counts: it must be spoken of
            return python, origin
    return sys.executable, OURS


def candidates(project: str, environ: Mapping[str, str]) -> list[str]:
    """The interpreters near by, absolute, whether or not they are there: the venvs, ours, the one on PATH."""
    found = [_python_of(directory) for _, directory in _venvs(project, environ) if directory]
    found += [sys.executable, shutil.which("python3", path=environ.get("PATH", os.defpath)) or sys.executable]
    return list(dict.fromkeys(found))


def _venvs(project: str, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What names a venv, and where it is, "" if nowhere."""
    active = environ.get("VIRTUAL_ENV", "")
    return ("$VIRTUAL_ENV", active), (".venv", f"{project}/.venv"), ("venv", f"{project}/venv")


def _configured(project: str, wanted: str, environ: Mapping[str, str]) -> str:
    path = os.path.normpath(Path(project, Path(wanted).expanduser()))
    if Path(path).is_dir():
        path = _python_of(path)
    elif "/" not in wanted and not Path(path).exists():
        path = shutil.which(wanted, path=environ.get("PATH", os.defpath)) or path
    if not os.path.lexists(path):
        raise ConfigError(
            f"{CONFIGURED} = {wanted!r}: there is no {path}",
            'Name an interpreter or a venv there, make the venv (python3 -m venv .venv), or write "auto".',
        )
    return path


def _python_of(directory: str) -> str:
    return os.path.abspath(f"{directory}/bin/python")  # noqa: PTH100 - pathlib has no word for "absolute, links kept, no .."


def _version(path: str) -> tuple[int, ...]:
    """The version that the interpreter says it is. Any Python since 2.6 understands this.

    Raises:
        OSError: it does not run; PermissionError if this user may not run it.
    """
    words = [path, "-ESs", "-c", "import sys; sys.stdout.write('%d.%d.%d' % sys.version_info[:3])"]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError("it says nothing for 30 s") from None
    if done.returncode != 0:
        said = done.stderr.strip().rpartition("\n")[2]
        raise OSError(f"exit code {done.returncode}{f' ({said})' if said else ''}")
    if not re.fullmatch(r"\d+\.\d+\.\d+", done.stdout):
        raise OSError(f"asked for its version, it says {done.stdout[:40]!r}")
    return tuple(map(int, done.stdout.split(".")))


def _fix_permission(path: str, origin: str) -> str:
    """What to do about a Python that is another user's: mostly a link of a venv into that user's home."""
    real = os.path.realpath(path)
    return (
        f"It is {real}: have all folders on the way there opened (chmod o+x), or make the venv of a Python that all may"
        f" run, or name another in [app] python of stack.toml (it is from {origin} now)."
    )


def _fix(path: str, origin: str) -> str:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    venv = Path(path).parent.parent
    if (venv / "pyvenv.cfg").is_file():
        return f"Make the venv anew: python{ours} -m venv --clear {venv}, then install the app's requirements in it."
    return f"Name another in [app] python of stack.toml (it is from {origin} now), such as {sys.executable}."
