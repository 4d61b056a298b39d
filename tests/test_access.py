"""Who may reach a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stack.facts.access import Identity, hindrance, of_user

STRANGER = Identity("a stranger", 61234, frozenset({61234}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that everybody may read, two directories deep; those above are made passable as far as they are ours."""
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_uid == os.geteuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o011)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for each in (tmp_path / "a", tmp_path / "a" / "b"):
        each.chmod(0o711)
    found = tmp_path / "a" / "b" / "file"
    found.write_text("")
    found.chmod(0o644)
    return found


def test_file_that_everybody_may_read_is_reached(file: Path) -> None:
    assert hindrance(str(file), STRANGER) == ""


def test_directory_without_x_is_named(file: Path) -> None:
    file.parent.parent.chmod(0o700)
    said = hindrance(str(file), STRANGER)
    assert said.startswith(f"a stranger cannot use {file.parent.parent} (drwx------ ")


def test_file_without_r_is_named(file: Path) -> None:
    file.chmod(0o600)
    assert f"cannot use {file} (-rw-------" in hindrance(str(file), STRANGER)


def test_connecting_takes_w(file: Path) -> None:
    assert hindrance(str(file), STRANGER, stat.S_IWOTH)
    file.chmod(0o646)
    assert hindrance(str(file), STRANGER, stat.S_IWOTH) == ""


def test_class_that_fits_first_decides_alone(file: Path) -> None:
    file.chmod(0o604)
    mine = file.stat()
    assert hindrance(str(file), Identity("its group", 61234, frozenset({mine.st_gid})))
    file.chmod(0o040)
    assert hindrance(str(file), Identity("its group", 61234, frozenset({mine.st_gid}))) == ""


def test_link_is_judged_by_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    file.parent.chmod(0o700)
    (tmp_path / "link").symlink_to(file)
    assert str(file.parent) in hindrance(str(tmp_path / "link"), STRANGER)


def test_missing_file_is_named(file: Path) -> None:
    assert hindrance(f"{file}-not", STRANGER) == f"{file}-not: No such file or directory"


def test_root_is_kept_from_nothing(file: Path) -> None:
    file.chmod(0)
    assert hindrance(str(file), Identity("root", 0, frozenset({0}))) == ""


def test_we_are_somebody() -> None:
    assert of_user("").uid == os.geteuid()
