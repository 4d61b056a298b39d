"""Which files are watched; what follows from a save is in e2e."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stack.config import load
from stack.desired import Plan, Service
from stack.errors import UsageError
from stack.operations.running import with_watcher
from stack.operations.watch import Watched, service

STACK = '[app]\nenv_file = "conf/secrets"\n'
SEVERAL = """
[apps.a]
directory = "a"
env_file = "../a.env"
[apps.b]
directory = "../b"
[sites.a]
app = "a"
static = { "/pictures" = "pictures" }
[sites.b]
app = "b"
listen = "8001"
static = {}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "shop"
    (directory / "env" / "lib").mkdir(parents=True)
    (directory / "env" / "pyvenv.cfg").touch()
    return directory


def watched(project: Path, text: str) -> Watched:
    (project / "stack.toml").write_text(text)
    return Watched.of(load(project).config)


@pytest.mark.parametrize(
    "path",
    [
        "app.py",
        "deep/er/module.py",
        "page.html",
        "deep/page.j2",
        "templates/mail.txt",
        "shop/templates/mail/order.txt",
        "stack.toml",
        "pyproject.toml",
        ".env",
        ".flaskenv",
        "conf/secrets",
    ],
)
def test_what_the_stack_depends_on_is_watched(project: Path, path: str) -> None:
    assert watched(project, STACK).has(project / path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "shop.db",
        "notes.txt",
        "conf/stack.toml",
        ".app.py.swp.py",
        ".git/hooks/x.py",
        ".venv/lib/x.py",
        ".stackctl/apps/app/stackctl_entry.py",
        "__pycache__/app.cpython-311.pyc",
        "deep/__pycache__/x.py",
        "node_modules/x/x.html",
        "env/lib/x.py",
        "static/page.html",
        "../elsewhere.py",
    ],
)
def test_what_others_make_or_serve_is_not(project: Path, path: str) -> None:
    assert not watched(project, STACK).has((project / path).resolve())


def test_every_app_is_watched_where_it_is(project: Path, tmp_path: Path) -> None:
    assert watched(project, SEVERAL).directories == (project,), "what is not there cannot be watched"
    (tmp_path / "b").mkdir()
    found = watched(project, SEVERAL)
    assert set(found.directories) == {project, tmp_path / "b"}
    assert set(found.stamps()) == {tmp_path / "a.env"}
    assert found.has(tmp_path / "a.env")
    assert found.has(tmp_path / "b" / "app.py")
    assert not found.has(tmp_path / "c" / "app.py")


def test_folders_that_are_served_directly_are_those_of_the_sites(project: Path) -> None:
    found = watched(project, SEVERAL)
    assert not found.has(project / "pictures" / "page.html")
    assert found.has(project / "static" / "page.html")


def test_the_stack_s_own_files_are_not_wherever_they_are(project: Path) -> None:
    assert not watched(project, '[stack]\nstate_dir = "state"\n').has(project / "state" / "apps" / "entry.py")


def test_the_watcher_starts_last_and_ends_first_and_no_app_may_have_its_name() -> None:
    nginx, app = Service("nginx", 1, ("nginx",), "/"), Service("watch", 0, ("python",), "/")
    plan = Plan("shop", "/shop", "/", "/run", "", (), (), (), (nginx,), ())
    watcher = service(plan)
    assert watcher.tier > nginx.tier
    assert (watcher.user, watcher.link) == ("", ""), "as the supervisor, and never replaced by a reload"
    assert with_watcher(plan, watcher).services == (nginx, watcher)
    with pytest.raises(UsageError, match="under the name watch"):
        with_watcher(replace(plan, services=(app,)), watcher)


def test_a_folder_counts_if_it_brings_what_counts(project: Path) -> None:
    for name, file in (("package", "new.py"), ("pictures", "new.png"), ("node_modules", "new.py")):
        (project / name / "deep").mkdir(parents=True)
        (project / name / "deep" / file).touch()
    found = watched(project, STACK)
    assert [found.has(project / each) for each in ("package", "pictures", "node_modules", "env")] == [
        True,
        False,
        False,
        False,
    ]
