"""CPUs, limits, and the directory for sockets."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from stack.config import AUTO, Config
from stack.errors import ConfigError

__all__ = ["find_cpus", "find_somaxconn", "parse_cpu_max", "parse_quota", "runtime_dir"]

CGROUPS = Path("/sys/fs/cgroup")
SOCKET_PATH = 107  # bytes in a unix socket's path: sun_path has 108, the last is NUL (unix(7))
LONGEST_NAME = "a" * 32  # of an app
READABLE = 8  # letters of the stack's name that an automatic directory keeps at least
SOMAXCONN = 128  # the kernel's own before 5.4, should it not say


def parse_cpu_max(text: str) -> float | None:
    """CPUs that a `cpu.max` of cgroup v2 allows; None: no limit."""
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" else parse_quota(quota, period or "100000")


def parse_quota(quota: str, period: str) -> float | None:
    """CPUs that the two files `cpu.cfs_quota_us` and `cpu.cfs_period_us` of cgroup v1 allow; None: no limit."""
    try:
        used, every = int(quota), int(period)
    except ValueError:
        return None
    return used / every if used > 0 and every > 0 else None


def cpu_quota(membership: str, root: Path) -> float | None:
    """The tightest quota on the way from the process's own cgroups to `root`; None: no limit.

    `membership` is the text of /proc/self/cgroup. In a container its path may be the host's and not exist here: the
    way up to the root still passes the container's own limit.
    """
    found: list[float | None] = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            directories = (*_upwards(root, path), *_upwards(root / "unified", path))
            found += [parse_cpu_max(_text(each / "cpu.max")) for each in directories]
        elif "cpu" in controllers.split(","):
            directories = (*_upwards(root / controllers, path), *_upwards(root / "cpu", path))
            found += [
                parse_quota(*(_text(each / f"cpu.cfs_{name}_us") for name in ("quota", "period")))
                for each in directories
            ]
    return min((each for each in found if each is not None), default=None)


def find_cpus() -> int:
    """CPUs that this process may use: its affinity, and the quota of its cgroups rounded up. At least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(_text(Path("/proc/self/cgroup")), CGROUPS)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def find_somaxconn() -> int:
    """The longest backlog that the kernel grants."""
    text = _text(Path("/proc/sys/net/core/somaxconn")).strip()
    return int(text) if text.isdigit() else SOMAXCONN


def runtime_dir(config: Config, environ: Mapping[str, str]) -> str:
    """The directory for sockets and lock: the one that is there, else the one to make.

    The same for the same project, name and user: what systemd has started for a user knows nothing of the session in
    which that user types `stackctl reload`, and is found there nevertheless.

    Every socket in it, `sockets/APP.g123456.sock`, has a path of at most 107 bytes.

    Raises:
        ConfigError: the configured one is too long for that.
    """
    configured = config.stack.runtime_dir
    if configured != AUTO:
        path = os.path.normpath(Path(config.project, configured))
        room = _room(path, max(config.apps, key=len))
        if room < 0:
            raise ConfigError(
                f"[stack] runtime_dir is {-room} bytes too long: {path}",
                'A unix socket\'s path may have 107 bytes. Name a shorter directory, or write "auto".',
            )
        return path
    token = _token(config.project)
    shared = any(site.web == "external" for site in config.sites.values())
    found = []
    for base in _bases(environ, shared=shared):
        room = _room(f"{base}/-{token}", LONGEST_NAME)
        if room >= min(READABLE, len(config.name)):
            found.append(Path(base, f"{config.name[:room]}-{token}"))
    user = os.geteuid()
    there = (each for each in found if _is_own_directory(each.parent, user) and _is_own_directory(each, user))
    return str(next(there, found[0]))  # the last base is short: it is always found


def runtime_dirs(project: Path, environ: Mapping[str, str]) -> list[str]:
    """Those there are for a project, under whatever name: to find its stack when its configuration cannot be read."""
    return [
        str(each)
        for base in _bases(environ, shared=False)
        for each in sorted(Path(base).glob(f"*-{_token(str(project))}"))
    ]


def _token(project: str) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(project))).hexdigest()[:8]


def _bases(environ: Mapping[str, str], *, shared: bool) -> Iterator[str]:
    """Where runtime directories are. One that is `shared` with another user's web server must not be in a session's."""
    user = os.geteuid()
    if user == 0:
        yield "/run/stackctl"
        return
    session = environ.get("XDG_RUNTIME_DIR", "")
    if not shared and session.startswith("/") and _is_own_directory(Path(session), user):
        yield f"{session.rstrip('/')}/stackctl"
    yield f"/tmp/stackctl-{user}"  # noqa: S108 - whoever makes it makes it 0700, or refuses somebody else's


def _is_own_directory(path: Path, user: int) -> bool:
    """After `su`, XDG_RUNTIME_DIR may still name another user's."""
    try:
        return path.is_dir() and path.stat().st_uid == user
    except OSError:
        return False


def _room(directory: str, app: str) -> int:
    """Bytes that the longest socket path leaves free; negative: so many too long."""
    return SOCKET_PATH - len(os.fsencode(f"{directory}/sockets/{app}.g123456.sock"))


def _upwards(root: Path, path: str) -> Iterator[Path]:
    directory = root / path.strip("/")
    yield directory
    while directory != root and root in directory.parents:
        directory = directory.parent
        yield directory


def _text(file: Path) -> str:
    """What the file says; "" if it cannot be read."""
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
