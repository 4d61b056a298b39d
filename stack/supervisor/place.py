"""The runtime directory: sockets, links, the lock and the plan of a running stack. What is in it dies with the stack.

Nothing in it is followed or trusted that somebody else could have put there.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import itertools
import json
import os
import pwd
import stat
import time
from pathlib import Path
from typing import Any

from stack import desired
from stack.desired import Plan

__all__ = ["Taken", "clear", "enter", "enter_and_take", "holds", "leave", "link", "read", "remember", "take", "unlink"]

LOCK = "lock"
PLAN = "plan.json"
UNSIGNED_MOST = 100  # looks at a lock that nobody has signed, one each 10 ms


class Taken(OSError):  # noqa: N818 - it says what the lock is
    """Another supervisor holds the lock. `owner` is what it wrote: its `pid`, and `since` when (epoch seconds)."""

    def __init__(self, owner: dict[str, Any]) -> None:
        super().__init__("the lock is taken")
        self.owner = owner


def enter(runtime_dir: str) -> None:
    """Makes the runtime directory, by its path or by a link of ours to it; refuses one that others could change.

    Others may pass through it and see nothing: what they may use in it says so itself.

    Raises:
        OSError: it cannot be made, or somebody else owns it, or could put another in its place.
    """
    where, ours = Path(runtime_dir), (os.geteuid(),)
    _directory(where.parent, 0o711, owners=(0, *ours), shared=True)
    if where.is_symlink():
        _refuse_owner(where, where.lstat(), ours)
        enter(os.path.realpath(where))
    else:
        _directory(where, 0o711, owners=ours)


def _directory(path: Path, mode: int, owners: tuple[int, ...], *, shared: bool = False) -> None:
    """Makes a directory, or sees that nobody but these users can change what is in it; if `shared`, what is theirs."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(parents=True)
        path.chmod(mode)  # whatever the umask
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{path} is not a directory")
    _refuse_owner(path, found, owners)
    if found.st_mode & stat.S_IWOTH and not (shared and found.st_mode & stat.S_ISVTX):
        raise OSError(f"everybody may write to {path}")


def _refuse_owner(path: Path, found: os.stat_result, owners: tuple[int, ...]) -> None:
    if found.st_uid not in owners:
        raise OSError(f"{path} belongs to another user (uid {found.st_uid})")


def point(alias: str, runtime_dir: str) -> None:
    """A link to the runtime directory from where one looks who does not know the flags that have moved it."""
    Path(alias).parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    Path(alias).symlink_to(runtime_dir)


def take(runtime_dir: str) -> int:
    """The lock, as a descriptor that holds it until the last process that has it ends.

    Raises:
        Taken: another supervisor has it.
    """
    path = Path(runtime_dir, LOCK)
    for patience in itertools.count():
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 4096, 0)
            os.close(handle)
            # Not signed yet: whoever starts does it at once, whoever only clears up is gone as soon.
            if owner or patience == UNSIGNED_MOST:
                raise Taken(json.loads(owner) if owner else {}) from None
            time.sleep(0.01)
            continue
        # Whoever held it may have removed the file between our open and our lock: then this lock locks nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)  # a killed run signed it
                return handle
        os.close(handle)
    raise AssertionError("there is always a next time")


def enter_and_take(runtime_dir: str) -> int:
    """Both, though somebody who looks meanwhile whether a stack runs may clear the empty directory away in between.

    Raises:
        Taken, OSError: as `enter` and `take` do.
    """
    for patience in itertools.count():
        try:
            enter(runtime_dir)
            return take(runtime_dir)
        except FileNotFoundError:
            if patience == UNSIGNED_MOST:
                raise
    raise AssertionError("there is always a next time")


def holds(handle: int, runtime_dir: str) -> bool:
    """Whether this is still the lock of the directory: not, once the directory was left and somebody else entered."""
    try:
        return os.path.samestat(os.fstat(handle), Path(runtime_dir, LOCK).stat())
    except FileNotFoundError:
        return False


def sign(handle: int, pid: int, since: float) -> None:
    """Writes into the lock who holds it."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"pid": pid, "since": since}).encode(), 0)


def prepare(plan: Plan) -> None:
    """Room for the sockets, without anything that a killed run left behind."""
    sockets = Path(plan.runtime_dir, "sockets")
    with contextlib.suppress(FileExistsError):
        sockets.mkdir(mode=0o700)
    for path in sockets.iterdir():
        path.unlink()
    uid = pwd.getpwnam(plan.user).pw_uid if plan.user and os.geteuid() == 0 else -1
    gid = grp.getgrnam(plan.group).gr_gid if plan.group else pwd.getpwnam(plan.user).pw_gid if uid != -1 else -1
    os.chown(sockets, uid, gid, follow_symlinks=False)
    if plan.group:
        sockets.chmod(0o2710)  # its members pass through, and what is made in it is the group's


def remember(plan: Plan) -> None:
    """Keeps the plan, so that what was started with which flags can be asked of the disk as well."""
    path = Path(plan.runtime_dir, PLAN)
    fresh = path.with_name(PLAN + ".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(desired.to_json(plan))
    fresh.replace(path)


def recall(runtime_dir: str) -> Plan:
    """The plan that was kept.

    Raises:
        OSError, ValueError: there is none, or it is not one of this version.
    """
    return desired.from_json(Path(runtime_dir, PLAN).read_text("utf-8"))


def link(path: str, target: str) -> None:
    """Lets the link point to a socket beside it, in one step: there is no moment without a link."""
    fresh = Path(path + ".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path(target).name)
    fresh.replace(path)


def unlink(path: str) -> None:
    """Removes a link that nobody looks for any more."""
    Path(path).unlink(missing_ok=True)


def read(path: str) -> str:
    """The text of a small file, empty if there is none."""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def clear(runtime_dir: str) -> None:
    """Removes what a killed run left, if it left anything, holding its lock: nobody can be starting there meanwhile.

    Raises:
        Taken: it is not left, it runs.
        OSError: it cannot be used.
    """
    try:
        handle = take(runtime_dir)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            Path(runtime_dir).unlink()  # a link to nowhere
        return
    try:
        leave(runtime_dir)
    finally:
        os.close(handle)


def leave(runtime_dir: str) -> None:
    """Removes all of it, by its path or by a link to it. The lock's file goes last, the lock with the process."""
    where = Path(os.path.realpath(runtime_dir))
    sockets = where / "sockets"
    mine = [
        *(sockets.iterdir() if sockets.is_dir() else ()),
        *where.glob("*.pid"),
        *where.glob(PLAN + "*"),
        where / "control.sock",
    ]
    for path in [*mine, where / LOCK]:
        with contextlib.suppress(OSError):
            path.unlink()
    for directory in (sockets, where):
        with contextlib.suppress(OSError):
            directory.rmdir()
    if Path(runtime_dir).is_symlink():
        Path(runtime_dir).unlink()
