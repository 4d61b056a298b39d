"""A plan's files on the disk: what would change, what nginx says of it, one step forward, the same step back."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stack import files
from stack.desired import Check, File, Plan, Service
from stack.errors import ConfigError, StackError

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
ROOT = os.geteuid() == 0
GOOD = "events {}\npid tmp/nginx/check.pid;\nerror_log stderr;\n"
with_nginx = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")
only_mortals = pytest.mark.skipif(ROOT, reason="root may write everywhere: run the tests as another user too")


def plan(state: Path, checks: tuple[Check, ...] = (), **texts: str) -> Plan:
    """A plan of these files; `__` stands for a slash, `_conf` for the ending."""
    made = tuple(File(name.replace("__", "/").replace("_conf", ".conf"), text) for name, text in texts.items())
    return Plan("shop", "/srv/shop", str(state), "/run/shop", "http://x/", made, checks, (), (), ())


def said_by(script: str) -> Check:
    return Check("the check", (sys.executable, "-c", script, "{files}"), "Look at it.")


def tree(directory: Path) -> dict[str, str]:
    return {str(each.relative_to(directory)): each.read_text() for each in directory.rglob("*") if each.is_file()}


# What would change.


def test_a_missing_file_is_a_change_from_nothing(tmp_path: Path) -> None:
    (change,) = files.changes(plan(tmp_path, a="one\n"))
    assert (change.path, change.old, change.new) == (tmp_path / "a", None, "one\n")
    assert change.diff() == f"--- /dev/null\n+++ {tmp_path}/a\n@@ -0,0 +1 @@\n+one\n"


def test_a_different_file_is_shown_as_a_diff(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    (change,) = files.changes(plan(tmp_path, a="one\n2\n"))
    assert change.diff().endswith("@@ -1,2 +1,2 @@\n one\n-two\n+2\n")


def test_an_equal_file_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    assert list(files.changes(plan(tmp_path, a="one\n"))) == []


def test_a_file_that_is_no_text_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    assert len(list(files.changes(plan(tmp_path, a="one\n")))) == 1


# Forward, and back.


def test_write_makes_the_disk_as_planned(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    files.write(plan(state, nginx__a_conf="one\n", b="two\n"))
    assert list(files.changes(plan(state, nginx__a_conf="one\n", b="two\n"))) == []
    assert (state / "log").is_dir()
    assert (state / ".gitignore").read_text().endswith("*\n")
    assert sorted(tree(state)) == [".gitignore", "b", "nginx/a.conf"]


def test_write_tells_only_what_it_changed(tmp_path: Path) -> None:
    files.write(plan(tmp_path, a="one\n", b="two\n"))
    written = files.write(plan(tmp_path, a="one\n", b="three\n"))
    assert [(each.path.name, each.old, each.new) for each in written.changes] == [("b", "two\n", "three\n")]


def test_put_back_makes_it_as_it_was(tmp_path: Path) -> None:
    files.write(plan(tmp_path, a="one\n"))
    (tmp_path / "a").chmod(0o640)
    before = tree(tmp_path)
    files.write(plan(tmp_path, a="1\n", nginx__b="2\n")).put_back()
    assert tree(tmp_path) == before


def test_one_that_cannot_be_put_back_keeps_no_other_from_it(tmp_path: Path) -> None:
    files.write(plan(tmp_path, a="one\n", b="two\n"))
    written = files.write(plan(tmp_path, a="1\n", b="2\n"))
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    written.put_back()
    assert (tmp_path / "b").read_text() == "two\n"


def test_if_one_file_fails_those_before_are_put_back(tmp_path: Path) -> None:
    files.write(plan(tmp_path, a="one\n"))
    (tmp_path / "b").mkdir()
    with pytest.raises(StackError, match="cannot be written"):
        files.write(plan(tmp_path, a="1\n", b="2\n"))
    assert (tmp_path / "a").read_text() == "one\n"


def test_modes_are_as_planned(tmp_path: Path) -> None:
    made = plan(tmp_path)
    secret = Plan(**{**{name: getattr(made, name) for name in Plan.__slots__}, "files": (File("a", "x\n", 0o600),)})
    before = os.umask(0)
    try:
        files.write(secret)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_reader_has_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """A file is replaced, not written into: who has it open reads on in the old one."""
    files.write(plan(tmp_path, a="one\n" * 1000))
    with (tmp_path / "a").open() as reader:
        assert reader.readline() == "one\n"
        files.write(plan(tmp_path, a="two\n" * 1000))
        assert set(reader) == {"one\n"}
    assert set((tmp_path / "a").read_text().splitlines()) == {"two"}
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".a")] == []


def test_an_own_gitignore_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    files.write(plan(tmp_path, a="one\n"))
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


# What the programs say.


def test_a_check_sees_the_new_files_and_the_disk_the_old(tmp_path: Path) -> None:
    files.write(plan(tmp_path, a="old\n"))
    script = f"""
import sys
assert open(sys.argv[1] + "/a").read() == "new\\n"
assert open("{tmp_path}/a").read() == "old\\n"
"""
    files.validate(plan(tmp_path, (said_by(script),), a="new\n"))
    assert (tmp_path / "a").read_text() == "old\n"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("check-")] == []


def test_a_refusal_has_the_programs_words_and_leaves_the_disk_untouched(tmp_path: Path) -> None:
    files.write(plan(tmp_path, a="old\n"))
    before = tree(tmp_path)
    check = said_by("import sys; sys.exit('bad line in ' + sys.argv[1] + '/a')")
    with pytest.raises(ConfigError) as caught:
        files.validate(plan(tmp_path, (check,), a="new\n"))
    assert caught.value.message == "the check refuses the rendered configuration; nothing was changed"
    assert caught.value.detail == f"bad line in {tmp_path}/a"
    assert caught.value.hint == "Look at it."
    assert tree(tmp_path) == before


def test_a_program_that_has_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="/nowhere/nginx cannot be run"):
        files.validate(plan(tmp_path, (Check("nginx -t", ("/nowhere/nginx", "-t")),)))


@pytest.mark.e2e
@with_nginx
def test_the_real_nginx_refuses_a_broken_file_and_accepts_a_good_one(tmp_path: Path) -> None:
    argv = (str(NGINX), "-p", "{files}", "-c", "nginx/nginx.conf", "-t", "-q")
    check = Check("nginx -t", argv)
    files.validate(plan(tmp_path, (check,), nginx__nginx_conf=GOOD))
    assert sorted(tree(tmp_path)) == [".gitignore"]
    with pytest.raises(ConfigError) as caught:
        files.validate(plan(tmp_path, (check,), nginx__nginx_conf=GOOD + "evnts {}\n"))
    assert f'unknown directive "evnts" in {tmp_path}/nginx/nginx.conf:4' in caught.value.detail
    assert sorted(tree(tmp_path)) == [".gitignore"]


# Where nothing can be written.


def test_a_state_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    for act in (files.write, files.validate):
        with pytest.raises(StackError, match="cannot be written") as caught:
            act(plan(tmp_path / "state", a="one\n"))
        assert "--set stack.state_dir=DIR" in caught.value.hint


@only_mortals
def test_a_state_directory_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    files.write(plan(tmp_path, a="one\n"))
    tmp_path.chmod(0o555)
    try:
        for act in (files.write, files.validate):
            with pytest.raises(StackError, match="cannot be written: Permission denied"):
                act(plan(tmp_path, a="two\n"))
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "a").read_text() == "one\n"


def test_compiled_code_of_a_replaced_file_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    asked = [sys.executable, "-c", "import entry; print(entry.application)"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    said = []
    for number in "12":
        made = replace(plan(tmp_path), files=(File("entry.py", f"application = {number}\n"),))
        files.write(made)
        os.utime(tmp_path / "entry.py", (1_700_000_000, 1_700_000_000))  # the same size, the same second
        done = subprocess.run(asked, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
        said.append(done.stdout.strip())
    assert said == ["1", "2"]


# What others could have put there.


def with_access_log(state: Path) -> Plan:
    nginx = Service("nginx", 1, ("nginx",), "/", logs=(str(state / "log" / "access.log"),))
    return replace(plan(state, a="one\n"), services=(nginx,))


@pytest.mark.parametrize("name", ["stack.log", "access.log"])
def test_a_link_in_a_log_s_place_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "log").mkdir(0o700)
    (tmp_path / "log" / name).symlink_to(tmp_path / "victim")
    for act in (files.validate, files.write):
        with pytest.raises(StackError, match=f"log/{name} is not a file"):
            act(with_access_log(tmp_path))
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "a").exists()
    (tmp_path / "log" / name).unlink()
    (tmp_path / "log" / name).write_text("an old line\n")
    files.write(with_access_log(tmp_path))


@pytest.mark.parametrize(
    ("name", "mode"), [("", 0o777), ("", 0o1777), ("log", 0o777), ("log", 0o770), ("tmp/nginx", 0o775)]
)
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    state = tmp_path / "state"
    files.write(plan(state, a="one\n"))
    (state / name).chmod(mode)
    with pytest.raises(StackError, match=f"others may write to {state / name}") as caught:
        files.write(plan(state, a="two\n"))
    assert f"chmod go-w {state / name}" in caught.value.hint
    assert (state / "a").read_text() == "one\n"


@pytest.mark.skipif(not ROOT, reason="only root can make what belongs to another: run the tests as root too")
@pytest.mark.parametrize("name", ["", "log", "tmp/nginx"])
def test_a_directory_of_a_stranger_is_refused_and_one_of_the_project_s_owner_is_not(tmp_path: Path, name: str) -> None:
    state, stranger = tmp_path / "state", 12345
    mine = replace(plan(state, a="one\n"), project=str(tmp_path))
    files.write(mine)
    os.chown(state / name, stranger, stranger)
    with pytest.raises(StackError, match=f"{state / name} belongs to another user .uid {stranger}"):
        files.write(mine)
    os.chown(tmp_path, stranger, stranger)
    files.write(mine)


@pytest.mark.skipif(not ROOT, reason="only root gives to others: run the tests as root too")
def test_the_web_server_s_user_and_nobody_else_gets_to_its_logs(tmp_path: Path) -> None:
    group = pwd.getpwnam("daemon").pw_gid
    files.write(replace(plan(tmp_path, a="one\n"), user="daemon"))
    found = (tmp_path / "log").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, group, 0o710)
    (tmp_path / "log").chmod(0o751)
    os.chown(tmp_path / "log", 0, 0)
    files.write(replace(plan(tmp_path, a="two\n"), user="daemon"))
    found = (tmp_path / "log").stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0o751)
