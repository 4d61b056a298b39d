"""The web server that somebody else runs on this machine: who it is, and where it wants its sites."""

from __future__ import annotations

import grp
import os
from pathlib import Path

from stack.config import AUTO, Config
from stack.errors import ConfigError

__all__ = ["find_groups", "find_layout", "find_web_group"]

GROUPS = ("www-data", "nginx", "http")  # of nginx as Debian and Ubuntu, as nginx.org and Red Hat, as Arch package it
LAYOUTS = ("sites-available", "conf.d")


def find_web_group(config: Config) -> str:
    """The group of the external web server, which may connect to the apps' sockets; "" if there is no such server.

    Raises:
        ConfigError: the configured group does not exist, or none is configured and none of the usual ones does.
    """
    wanted = [site.web_group for site in config.sites.values() if site.web == "external"]
    if not wanted:
        return ""
    known = {each.gr_name for each in grp.getgrall()}
    for name in (wanted[0],) if wanted[0] != AUTO else GROUPS:
        if name in known:
            return name
    raise ConfigError(
        f"[site] web_group: this machine has no group {wanted[0] if wanted[0] != AUTO else ' or '.join(GROUPS)}",
        "Name the group that the web server runs with: `ps -o group= -C nginx` shows it while it runs.",
    )


def find_groups() -> tuple[str, ...]:
    """The groups that this process is in and that have a name."""
    mine = {os.getegid(), *os.getgroups()}
    return tuple(each.gr_name for each in grp.getgrall() if each.gr_gid in mine)


def find_layout(etc: Path = Path("/etc/nginx")) -> str:
    """Which folder that nginx reads its sites from; "" if there is none."""
    return next((each for each in LAYOUTS if (etc / each).is_dir()), "")
