"""Projects of many kinds, in places of many kinds."""

from __future__ import annotations

import json

import pytest

from .client import ask
from .conftest import Copy
from .project import APPS, EXAMPLE, Project, free_port

pytestmark = pytest.mark.e2e

SECRET = "kept-from-everybody"


def test_two_projects_run_side_by_side(copy: Copy) -> None:
    one, two = copy(APPS / "steered"), copy(APPS / "steered")
    two.write("version.txt", "two")
    one.up()
    two.up()
    assert one.get("/").text == "1"
    assert two.get("/").text == "two"
    one.run("down")
    assert two.get("/").text == "two"
    assert two.run("reload").code == 0


@pytest.mark.parametrize(
    ("name", "under", "protocol"),
    [
        ("""it's "my" site, ünïcode & 100% $HOME ${x} {y} \\n; # 'ok'""", "", "uwsgi"),
        ("a-name-of-more-than-thirty-two-letters-indeed", "/".join(["deep-" * 9] * 5), "http"),
    ],
    ids=["odd", "deep"],
)
def test_project_may_be_anywhere(copy: Copy, name: str, under: str, protocol: str) -> None:
    project = copy(EXAMPLE, name, under)
    assert not under or len(str(project.directory)) > 200
    project.up("--workers", "1", "--set", f"server.protocol={protocol}")
    assert project.get("/healthz").text == "ok\n"
    assert project.get("/static/style.css").body == (project.directory / "static" / "style.css").read_bytes()
    assert all(each["ok"] for each in project.run("health", "--json").json)
    project.run("reload")
    assert project.get("/").status == 200
    assert project.run("diff").out == ""


def test_plain_wsgi_callable(copy: Copy) -> None:
    project = copy(None)
    project.write("wsgi.py", (APPS / "wsgi_plain.py").read_text())
    project.up()
    assert project.get("/there?x=1").text == "hello /there\n"


def test_factory_with_arguments(copy: Copy) -> None:
    project = copy(None)
    project.write(
        "shop.py",
        "from flask import Flask\n\n\ndef create_app(greeting, count=1):\n    app = Flask(__name__)\n"
        "    app.add_url_rule('/', view_func=lambda: greeting * count)\n    return app\n",
    )
    project.up("--set", "app.target=shop:create_app('hey ', count=2)")
    assert project.get("/").text == "hey hey "


def test_two_apps_and_two_sites(copy: Copy) -> None:
    project = copy(None)
    other = free_port()
    for name in ("shop", "blog"):
        project.write(f"{name}/app.py", f"def app(environ, start):\n    start('200 OK', [])\n    return [b'{name}']\n")
        project.write(f"{name}/files/name.txt", f"file of {name}")
    text = "".join(
        f'[apps.{name}]\ndirectory = "{name}"\ntarget = "app:app"\n[sites.{name}]\napp = "{name}"\n'
        f'listen = "127.0.0.1:{port}"\nstatic = {{ "/files" = "{name}/files" }}\n'
        for name, port in (("shop", project.port), ("blog", other))
    )
    project.write("stack.toml", f"{text}[apps.blog.server]\nworkers = 1\n")
    project.run("up", "-d")
    for name, port in (("shop", project.port), ("blog", other)):
        assert ask(port, "GET", "/").text == name
        assert ask(port, "GET", "/files/name.txt").text == f"file of {name}"
    assert len(project.workers("blog")) == 1
    assert len(project.workers("shop")) >= 2
    assert len(project.run("health", "--json").json) == 15
    before = project.pid("blog")
    project.run("reload")
    assert project.pid("blog") != before


def test_one_nginx_serves_two_sites_by_name_on_one_port(copy: Copy) -> None:
    project = copy(None)
    for name in ("shop", "blog"):
        project.write(f"{name}.py", f"def app(environ, start):\n    start('200 OK', [])\n    return [b'{name}']\n")
    text = "".join(
        f'[apps.{name}]\ntarget = "{name}:app"\n[sites.{name}]\napp = "{name}"\n'
        f'listen = "{project.address}"\nserver_names = ["{name}.test"]\n'
        for name in ("shop", "blog")
    )
    project.write("stack.toml", text)
    project.run("up", "-d")
    for name in ("shop", "blog"):
        assert project.get("/", Host=f"{name}.test").text == name
    assert all(each["ok"] for each in project.run("health", "--json").json)


def test_secrets_reach_the_app_and_nothing_else(steered: Project) -> None:
    steered.write(".env.secret", f'TOKEN="{SECRET}"\n').chmod(0o600)
    steered.write("stack.toml", '[app]\nenv_file = ".env.secret"\nenv = { COLOUR = "blue" }\n')
    steered.up()
    assert steered.get("/environ/COLOUR").text == "blue"
    assert steered.get("/environ/TOKEN").text == SECRET
    steered.run("reload")
    shown = [
        steered.run(*command)
        for command in (
            ["config"],
            ["config", "--json"],
            ["server-conf"],
            ["nginx-conf"],
            ["status", "--json"],
            ["logs"],
        )
    ]
    assert not [each for each in shown if SECRET in each.out + each.err]
    assert json.loads((steered.runtime / "plan.json").read_text())["services"][0]["env_file"]
    where = [*steered.state.rglob("*"), *steered.runtime.rglob("*")]
    assert not [each for each in where if each.is_file() and SECRET.encode() in each.read_bytes()]


def test_our_own_variables_do_not_reach_the_app(steered: Project) -> None:
    steered.up(env={"STACKCTL_SERVER_THREADS": "2"})
    assert steered.get("/environ/STACKCTL_SERVER_THREADS").text == "(not set)"
    assert "--threads 2" in steered.run("server-conf", env={"STACKCTL_SERVER_THREADS": "2"}).out
