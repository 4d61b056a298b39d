"""The runtime directory: whose it is, who holds its lock, and what is left of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack.desired import Plan
from stack.supervisor import place

ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="only root can make what belongs to another: run the tests as root too")
STRANGER = 12345

HOLDER = """
import os, sys, time
from stack.supervisor import place
try:
    lock = place.take(sys.argv[1])
except place.Taken as taken:
    print("taken", taken.owner.get("pid"), flush=True)
else:
    place.sign(lock, os.getpid(), 1.5)
    print("held", os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def where() -> Iterator[Path]:
    """A place for a runtime directory in a directory that is ours."""
    parent = tempfile.mkdtemp(prefix="place-", dir="/tmp")
    yield Path(parent, "shop")
    shutil.rmtree(parent)


def plan(where: Path, user: str = "") -> Plan:
    return Plan("shop", "/srv/shop", "/s", str(where), "http://x/", (), (), (), (), (), user=user)


@contextmanager
def taker(where: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lock if it can, says so, and stays until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(where)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def word(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    said, _, pid = process.stdout.readline().strip().partition(" ")
    return said, pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Whose it is.


def test_it_is_made_for_us_alone_to_write_and_see_whatever_the_umask(where: Path) -> None:
    for umask, directory in ((0, where), (0o077, where / "deeper")):
        before = os.umask(umask)
        try:
            place.enter(str(directory / "deep"))
        finally:
            os.umask(before)
        assert (mode(directory), mode(directory / "deep")) == (0o711, 0o711)
    place.enter(str(where / "deep"))


def test_what_is_no_directory_is_refused(where: Path) -> None:
    where.write_text("")
    with pytest.raises(OSError, match="is not a directory"):
        place.enter(str(where))


def test_a_directory_that_everybody_may_write_to_is_refused(where: Path) -> None:
    where.mkdir()
    where.chmod(0o777)
    for each in (where, where / "below"):
        with pytest.raises(OSError, match=f"everybody may write to {where}"):
            place.enter(str(each))


def test_one_like_tmp_is_refused_as_well(where: Path) -> None:
    where.mkdir()
    where.chmod(0o1777)
    with pytest.raises(OSError, match=f"everybody may write to {where}"):
        place.enter(str(where))


def test_a_directory_in_one_like_tmp_is_fine(where: Path) -> None:
    where.parent.chmod(0o1777)
    place.enter(str(where))


def test_a_link_of_ours_is_followed(where: Path) -> None:
    other = where.with_name("other")
    where.symlink_to(other)
    place.enter(str(where))
    assert other.is_dir()


def test_a_link_of_ours_to_what_is_not_ours_is_refused(where: Path) -> None:
    where.symlink_to("/proc/1" if ROOT else "/usr")
    if ROOT:
        other = where.with_name("other")
        other.mkdir()
        os.chown(other, STRANGER, STRANGER)
        where.unlink()
        where.symlink_to(other)
    with pytest.raises(OSError, match="belongs to another user"):
        place.enter(str(where))


@only_root
def test_a_strangers_directory_is_refused(where: Path) -> None:
    where.mkdir()
    os.chown(where, STRANGER, STRANGER)
    for each in (where, where / "below"):
        with pytest.raises(OSError, match=f"belongs to another user .uid {STRANGER}"):
            place.enter(str(each))


@only_root
def test_a_planted_link_is_refused(where: Path) -> None:
    where.parent.chmod(0o1777)
    other = where.with_name("other")
    other.mkdir()
    where.symlink_to(other)
    os.chown(where, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(OSError, match="belongs to another user"):
        place.enter(str(where))


# The lock.


def test_only_one_process_gets_the_lock(where: Path) -> None:
    place.enter(str(where))
    with taker(where) as first, taker(where) as second, taker(where) as third:
        said = [word(each) for each in (first, second, third)]
    assert sorted(each for each, _ in said) == ["held", "taken", "taken"]


def test_who_is_refused_is_told_by_whom(where: Path) -> None:
    place.enter(str(where))
    with taker(where) as holder:
        assert word(holder) == ("held", str(holder.pid))
        with pytest.raises(place.Taken) as caught:
            place.take(str(where))
    assert caught.value.owner == {"pid": holder.pid, "since": 1.5}


def test_the_lock_of_a_killed_process_is_free(where: Path) -> None:
    place.enter(str(where))
    with taker(where) as holder:
        assert word(holder)[0] == "held"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.close(place.take(str(where)))
    assert (where / "lock").exists()


def test_the_lock_is_held_by_whoever_inherits_it(where: Path) -> None:
    place.enter(str(where))
    lock = place.take(str(where))
    place.sign(lock, os.getpid(), 1.5)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock,)
    ) as heir:
        os.close(lock)
        with pytest.raises(place.Taken):
            place.take(str(where))
        heir.communicate()
    os.close(place.take(str(where)))


def test_a_lock_that_was_removed_meanwhile_locks_nothing(where: Path) -> None:
    place.enter(str(where))
    first = place.take(str(where))
    (where / "lock").unlink()
    second = place.take(str(where))
    place.sign(second, os.getpid(), 1.5)
    assert not os.path.samestat(os.fstat(first), os.fstat(second))
    with pytest.raises(place.Taken):
        place.take(str(where))
    os.close(first)
    os.close(second)


def test_a_planted_lock_is_not_followed(where: Path) -> None:
    place.enter(str(where))
    victim = where / "victim"
    victim.write_text("precious")
    (where / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        place.take(str(where))
    assert victim.read_text() == "precious"


def test_a_second_signature_replaces_a_longer_one(where: Path) -> None:
    place.enter(str(where))
    lock = place.take(str(where))
    place.sign(lock, 1234567, 1234.5678)
    place.sign(lock, 1, 2.0)
    with pytest.raises(place.Taken) as caught:
        place.take(str(where))
    assert caught.value.owner == {"pid": 1, "since": 2.0}
    os.close(lock)


# What is in it.


def test_the_plan_is_kept_for_the_owner_alone(where: Path) -> None:
    place.enter(str(where))
    (where / "plan.json.new").write_text("left by a killed run")
    place.remember(plan(where))
    assert place.recall(str(where)) == plan(where)
    assert mode(where / "plan.json") == 0o600


def test_a_plan_that_is_not_there_or_no_plan_is_an_error(where: Path) -> None:
    place.enter(str(where))
    with pytest.raises(FileNotFoundError):
        place.recall(str(where))
    (where / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="not a plan"):
        place.recall(str(where))


def test_a_link_points_beside_itself_and_is_moved_in_one_step(where: Path) -> None:
    where.mkdir()
    link = where / "app.sock"
    place.link(str(link), f"{where}/app.g1.sock")
    assert str(link.readlink()) == "app.g1.sock"
    (where / "app.sock.new").write_text("left by a killed run")
    place.link(str(link), f"{where}/app.g2.sock")
    assert str(link.readlink()) == "app.g2.sock"
    assert [each.name for each in where.iterdir()] == ["app.sock"]


def test_room_for_sockets_is_empty(where: Path) -> None:
    place.enter(str(where))
    (where / "sockets").mkdir()
    (where / "sockets" / "app.g1.sock").write_text("")
    place.prepare(plan(where))
    assert list((where / "sockets").iterdir()) == []


@only_root
def test_sockets_belong_to_the_apps_user(where: Path) -> None:
    place.enter(str(where))
    place.prepare(plan(where, user="daemon"))
    assert (where / "sockets").owner() == "daemon"
    assert mode(where / "sockets") == 0o700


def test_a_small_file_is_read_or_empty(where: Path) -> None:
    where.mkdir()
    (where / "pid").write_text("12\n")
    (where / "odd").write_bytes(b"\xff")
    assert [place.read(f"{where}/{each}") for each in ("pid", "odd", "none", "")] == ["12\n", "", "", ""]


def full(where: Path) -> None:
    place.enter(str(where))
    place.prepare(plan(where))
    place.remember(plan(where))
    for name in ("lock", "control.sock", "nginx.g1.pid", "plan.json.new", "sockets/app.sock", "sockets/app.sock.new"):
        (where / name).write_text("")


def test_nothing_is_left(where: Path) -> None:
    full(where)
    place.leave(str(where))
    assert not where.exists()
    place.leave(str(where))


def test_nothing_is_left_by_way_of_a_link_either(where: Path) -> None:
    alias = where.with_name("aliases") / "alias"
    full(where)
    place.point(str(alias), str(where))
    assert alias.is_symlink()
    place.leave(str(alias))
    assert not where.exists()
    assert not alias.is_symlink()


def test_what_is_not_ours_stays(where: Path) -> None:
    full(where)
    (where / "notes.txt").write_text("mine")
    place.leave(str(where))
    assert [each.name for each in where.iterdir()] == ["notes.txt"]


def test_directory_that_is_cleared_away_in_between_is_made_again(where: Path) -> None:
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            with contextlib.suppress(place.Taken):
                place.clear(str(where))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(200):
            lock = taken(where)
            assert place.holds(lock, str(where))
            place.leave(str(where))
            os.close(lock)
    finally:
        ended.set()
        looker.join()


def taken(where: Path) -> int:
    """The lock, which somebody who only looks may have for a moment."""
    while True:
        with contextlib.suppress(place.Taken):
            return place.enter_and_take(str(where))
