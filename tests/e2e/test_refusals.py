"""A reload is whole or not at all: what is refused late takes back what was brought before."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from .client import Load
from .conftest import Copy
from .project import IN_THE_SERVER, Project, until

pytestmark = pytest.mark.e2e

TWO = """
[apps.blog]
target = "blog:app"
[apps.shop]
target = "shop:app"
[sites.blog]
listen = "{blog}"
app = "blog"
[sites.shop]
listen = "{shop}"
app = "shop"
"""
SAYS = """

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "{length}")])
    return [b"{text}"]
"""


def says(text: str) -> str:
    return SAYS.format(text=text, length=len(text))


def serving(project: Project) -> dict[str, Any]:
    """Every generation of every service, by pid."""
    return {each["name"]: [one["pid"] for one in each["generations"]] for each in project.status()["services"]}


def sockets(project: Project) -> dict[str, str]:
    """What is in the directory of the sockets, and where links lead."""
    found = (project.runtime / "sockets").iterdir()
    return {each.name: str(each.readlink()) if each.is_symlink() else "" for each in found}


def test_an_app_whose_neighbour_is_refused_stays_on_its_old_code(copy: Copy) -> None:
    project = copy(None)
    project.write("stack.toml", TWO.format(blog=project.address, shop=f"127.0.0.2:{project.port}"))
    project.write("blog.py", says("blog 1"))
    project.write("shop.py", says("shop 1"))
    project.run("up", "-d")
    before, files, links = serving(project), project.rendered(), sockets(project)
    project.write("blog.py", says("blog 2"))
    project.write("shop.py", IN_THE_SERVER.format("raise LookupError('no database')"))
    refused = project.run("reload", "--workers", "3", code=1)
    assert "shop did not start" in refused.err
    assert "no database" in refused.err
    assert project.get("/").text == "blog 1"
    until(lambda: serving(project) == before, "what was brought is gone")
    assert sockets(project) == links
    assert project.rendered() == files
    project.write("shop.py", says("shop 2"))
    project.run("reload")
    assert project.get("/").text == "blog 2"


def test_apps_stay_on_their_old_code_if_the_new_nginx_does_not_start(steered: Project) -> None:
    steered.up("--nginx", steered.wrapped_nginx('exec {nginx} "$@"'), "--workers", "2")
    before, files, links = serving(steered), steered.rendered(), sockets(steered)
    steered.wrapped_nginx('case " $* " in *" -t "*|*" -V "*) exec {nginx} "$@";; esac\necho "no, thanks"; exit 1')
    steered.write("version.txt", "2")
    with Load(steered.port) as load:
        refused = steered.run("reload", "--server=gunicorn", code=1)
        assert "nginx did not start: exit code 1" in refused.err
        assert "no, thanks" in refused.err
        assert steered.get("/").text == "1"
        until(lambda: serving(steered) == before, "what was brought is gone")
        assert sockets(steered) == links
        until(lambda asked=load.good: load.good > asked + 20, "requests are answered")  # type: ignore[misc]
    assert load.failed == []
    assert steered.rendered() == files


def test_an_app_server_that_is_not_there_is_named_with_what_installs_it(copy: Copy) -> None:
    project = copy(None)
    project.write("app.py", says("works"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.directory / ".venv"], check=True)
    project.up()
    before, files = serving(project), project.rendered()
    python = project.directory / ".venv" / "bin" / "python"
    for engine, package in (("uwsgi", "pyuwsgi"), ("gunicorn", "gunicorn")):
        refused = project.run("reload", "--server", engine, code=5, env={"PATH": "/nowhere"})
        assert f"there is no {engine} beside {python}, nor on PATH" in refused.err
        assert f"{python} -m pip install {package}" in refused.err
    assert (serving(project), project.rendered()) == (before, files)
    assert project.get("/").text == "works"


@pytest.mark.parametrize(
    ("code", "reason", "within"),
    [
        ("raise LookupError('no database')", "no database", 30),
        ("os._exit(3)", "did not start", 30),
        ("time.sleep(600)", "not ready within 2 s", 2),
    ],
    ids=["raises", "exits", "hangs"],
)
@pytest.mark.parametrize("engine", ["uwsgi", "gunicorn"])
def test_an_app_that_does_not_start_says_why_and_leaves_nothing(
    copy: Copy, engine: str, code: str, reason: str, within: int
) -> None:
    project = copy(None)
    project.write("app.py", IN_THE_SERVER.format(code))
    refused = project.up("--server", engine, "--workers=2", f"--set=server.start_within={within}", code=1)
    assert reason in refused.err
    assert len(refused.err.splitlines()) < 60
    project.nothing_is_left()


def test_what_is_wrong_when_it_is_imported_is_told_before_the_app_server_starts(copy: Copy) -> None:
    project = copy(None)
    project.write("app.py", "raise LookupError('no database')\n")
    refused = project.up("--server", "gunicorn", code=3)
    assert "no database" in refused.err
    assert "gunicorn" not in refused.err


def test_a_protocol_that_the_app_server_does_not_speak_is_refused(steered: Project) -> None:
    refused = steered.up("--server", "gunicorn", "--set", "server.protocol=uwsgi", code=3)
    assert "the app server gunicorn does not speak 'uwsgi'" in refused.err


@pytest.mark.parametrize("name", ["a $(HOME)", "@(app.py)", "c:d"])
def test_a_path_that_uwsgi_takes_for_something_else_is_refused(copy: Copy, name: str) -> None:
    project = copy(None, name)
    project.write("app.py", says("works"))
    refused = project.up("--server", "uwsgi", code=3)
    assert f"does not take the {name.strip('a c')[:2].rstrip('d')} in" in refused.err
    project.up("--server", "gunicorn")
    assert project.get("/").text == "works"


def test_a_path_that_nginx_takes_for_a_pattern_is_refused(copy: Copy) -> None:
    project = copy(None, "a[b]")
    project.write("app.py", says("works"))
    assert "for a pattern" in project.up(code=3).err
    project.up("--set", f"stack.state_dir={project.place}/state")
    assert project.get("/").text == "works"
