"""Whether somebody may reach a file: every directory on the way needs x for them (path_resolution(7))."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Identity", "closed", "hindrance", "of_group", "of_user"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who wants in: a user id (None if only a group is known), the ids of its groups, and what to call it."""

    name: str
    uid: int | None
    gids: frozenset[int]


def of_user(name: str) -> Identity:
    """The identity of a user of this machine, "" for ourselves."""
    if not name:
        uid, gids = os.geteuid(), {os.getegid(), *os.getgroups()}
        return Identity(_name(uid), uid, frozenset(gids))
    found = pwd.getpwnam(name)
    return Identity(name, found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid)))


def of_group(name: str) -> Identity:
    """Somebody of whom only the group is known."""
    return Identity(f"the group {name}", None, frozenset({grp.getgrnam(name).gr_gid}))


def hindrance(path: str, who: Identity, wanted: int = stat.S_IROTH) -> str:
    """What keeps somebody from a file, in words that name the directory or the file; "" if nothing does.

    `wanted` are the permission bits for the file itself, as they stand for others: S_IROTH to read, S_IWOTH to connect
    to a socket. Access control lists are not looked at.
    """
    real = Path(os.path.realpath(path))
    for each in [*reversed(real.parents), real]:
        need = stat.S_IXOTH if each != real or each.is_dir() else 0
        need |= wanted if each == real else 0
        try:
            found = each.stat()
        except OSError as error:
            return f"{each}: {error.strerror}"
        if not _may(found, who, need):
            owner = f"{_name(found.st_uid)}:{_group(found.st_gid)}"
            return f"{who.name} cannot use {each} ({stat.filemode(found.st_mode)} {owner})"
    return ""


def closed(directory: str, who: Identity) -> str:
    """What keeps somebody from passing through a directory, made already or to be made; as `hindrance` says it."""
    there = next(each for each in (Path(directory), *Path(directory).parents) if each.exists())
    return hindrance(str(there), who, wanted=0)


def _may(found: os.stat_result, who: Identity, need: int) -> bool:
    """The class that fits first decides alone: owner, else group, else others."""
    if who.uid == 0:
        return True
    shift = 6 if found.st_uid == who.uid else 3 if found.st_gid in who.gids else 0
    return found.st_mode >> shift & need == need


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
