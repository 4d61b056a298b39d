"""What users have: the wheel in a venv of its own, beside projects with venvs of theirs. Needs a package index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Copy
from .installed import ONE_PROCESS, venv
from .project import APPS, STATIC, Project

pytestmark = [pytest.mark.e2e, ONE_PROCESS]


@pytest.fixture(scope="session")
def theirs(venvs: Path) -> Path:
    """The Python of projects: it has Flask, and an app that comes from the package index."""
    return venv(venvs / "theirs", "httpbin")


def test_wheel_serves_a_project_whose_interpreter_knows_nothing_of_it(copy: Copy, stackctl: Path, theirs: Path) -> None:
    project = copy(APPS / "steered")
    project.command = (str(stackctl), "--project", str(project.directory))
    elsewhere = project.place / "elsewhere"
    elsewhere.mkdir()
    for place in (elsewhere, project.directory):
        (place / "stack.py").write_text("1 / 0  # not to be imported by us\n")
        (place / "templates" / "nginx").mkdir(parents=True)
        (place / "templates" / "nginx" / "site.conf.j2").write_text("not ours")
    (elsewhere / "http.py").write_text("1 / 0  # neither is this\n")
    project.write("stack.toml", f'[app]\npython = "{theirs}"\n{STATIC}')
    printed = project.run("nginx-conf", cwd=elsewhere)
    assert "proxy_pass" in printed.out
    project.up(cwd=elsewhere)
    assert project.get("/").text == "1"
    assert project.get("/static/hello.txt").text == "a file\n"
    for name in ("pydantic", "psutil", "typer", "dotenv"):
        assert project.get(f"/can-import/{name}").text == "False"
    assert project.get("/can-import/flask").text == "True"
    project.write("version.txt", "2")
    project.run("reload")
    assert project.get("/").text == "2"
    assert all(each["ok"] for each in project.run("health", "--json", cwd=elsewhere).json)


def test_modules_of_a_project_are_its_own_whatever_ours_are_called(copy: Copy, stackctl: Path, theirs: Path) -> None:
    project = copy(None)
    project.command = (str(stackctl), "--project", str(project.directory))
    for name in ("stack", "http", "master", "typing_extensions"):
        project.write(f"{name}.py", f"WHOSE = 'theirs, {name}'\n")
    project.write(
        "app.py",
        "import http, master, stack, typing_extensions\n\n\ndef app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [each.WHOSE.encode() for each in (http, master, stack, typing_extensions)]\n",
    )
    project.up("--set", "app.target=app:app", "--set", f"app.python={theirs}")
    assert project.get("/").text == "theirs, httptheirs, mastertheirs, stacktheirs, typing_extensions"


def test_httpbin_runs_unchanged(copy: Copy, theirs: Path) -> None:
    project: Project = copy(None)
    project.up("--set", "app.target=httpbin:app", "--set", f"app.python={theirs.parents[1]}")
    got = project.get("/get?a=1&a=2", Accept="x/y")
    assert f'"url": "{project.url}get?a=1&a=2"' in got.text
    assert '"origin": "127.0.0.1"' in got.text
    posted = project.post("/post", b'{"number": [1, 2]}', **{"Content-Type": "application/json"})
    assert re.search(r'"json": \{\s*"number": \[\s*1,\s*2\s*\]', posted.text)
    first = project.get("/redirect/2")
    assert first.status == 302
    assert first.headers["Location"] == "/relative-redirect/1"
    assert project.get("/absolute-redirect/1").headers["Location"] == f"{project.url}get"
    assert len(project.get("/stream/5").text.splitlines()) == 5
    assert project.get("/status/418").status == 418
    assert project.get("/gzip").headers["Content-Encoding"] == "gzip"
    icon = project.get("/static/favicon.ico")
    assert icon.status == 200
    assert icon.headers["Content-Type"] == "image/x-icon"
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', icon.headers["ETag"])
