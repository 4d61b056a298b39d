"""`[server] preload`: one load of the app for all workers, and a reload is a successor that loads it anew."""

from __future__ import annotations

import pytest

from .client import Load
from .conftest import Copy
from .project import Project, until

pytestmark = pytest.mark.e2e

APP = """
import os

LOADED_BY = os.getpid()
VERSION = {version!r}
{more}

def app(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/echo":
        return [environ["wsgi.input"].read()]
    return [f"{{VERSION}} {{LOADED_BY}} {{os.getpid()}} {{os.getppid()}}".encode()]
"""
THREAD = """
import sys, threading, time

if "stackctl_entry" in sys.modules:
    threading.Thread(target=time.sleep, args=(600,), name="poller", daemon=True).start()
"""


def app(version: str, more: str = "") -> str:
    return APP.format(version=version, more=more)


@pytest.fixture
def project(copy: Copy) -> Project:
    made = copy(None)
    made.write("stack.toml", "[server]\nworkers = 3\npreload = true\n")
    made.write("app.py", app("1"))
    return made


def test_reload_of_a_preloaded_app_is_a_successor_that_loses_no_request(project: Project) -> None:
    project.up()
    masters = set()
    with Load(project.port) as load:
        for version in ("1", "22", "333"):  # of as many sizes: Python knows what it has compiled by size and second
            if version != "1":
                project.write("app.py", app(version))
                project.run("reload")
            asked = load.good
            until(lambda asked=asked: load.good > asked + 20, "requests are answered")  # type: ignore[misc]
            said, loaded_by, pid, parent = project.get("/").text.split()
            assert said == version
            assert loaded_by == parent == str(project.pid("app")) != pid
            masters.add(parent)
    assert load.failed == []
    assert len(masters) == 3


def test_what_a_fork_would_break_refuses_the_reload_and_is_named(project: Project) -> None:
    project.up()
    project.write("app.py", app("2", THREAD))
    refused = project.run("reload", code=1)
    assert "what cannot be shared: thread poller" in refused.err
    assert "[server] preload" in refused.err
    assert project.get("/").text.startswith("1 ")
    project.run("reload", "--set", "server.preload=anyway")
    assert project.get("/").text.startswith("2 ")
    assert "--preload-anyway: " in project.log()


@pytest.mark.parametrize("engine", ["uwsgi", "gunicorn"])
def test_app_server_that_does_not_look_before_it_forks_is_refused(project: Project, engine: str) -> None:
    refused = project.up("--server", engine, code=3)
    assert f"[server] preload: the app server {engine} forks without a look at what that breaks" in refused.err
