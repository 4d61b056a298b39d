"""Without a web server: the app server takes the public socket."""

from __future__ import annotations

import psutil
import pytest

from .client import Load
from .project import STATIC, Project, until

pytestmark = pytest.mark.e2e


def test_app_server_faces_the_clients_and_serves_the_files(steered: Project) -> None:
    steered.write("stack.toml", STATIC)
    done = steered.up("--no-nginx", "--set", "site.max_body=1k")
    assert "warning: no web server" in done.err
    assert "browser -> bundled server" in done.err
    assert steered.get("/").text == "1"
    file = steered.get("/static/hello.txt")
    assert (file.text, file.headers["Content-Type"]) == ("a file\n", "text/plain")
    assert steered.post("/echo", b"x" * 1024).status == 200
    assert steered.post("/echo", b"x" * 1025).status == 413
    hops = steered.run("health", "--json").json
    assert [each["hop"] for each in hops] == ["config", "import", "process", "socket", "app", "site", "static"]


def test_reloads_without_a_web_server_lose_no_request(steered: Project) -> None:
    steered.up("--no-nginx")
    with Load(steered.port) as load:
        for number in range(2, 6):
            asked = load.good
            steered.write("version.txt", str(number))
            steered.run("reload")
            until(lambda asked=asked: load.good > asked, "requests are answered")  # type: ignore[misc]
    assert load.failed == []
    assert steered.get("/").text == "5"


def test_killed_app_server_is_replaced_on_the_same_public_socket(steered: Project) -> None:
    steered.up("--no-nginx")
    old = steered.pid("app")
    psutil.Process(old).kill()
    until(
        lambda: steered.service("app")["restarts"] == 1 and steered.service("app")["state"] == "serving", "it is back"
    )
    assert steered.get("/").text == "1"


def test_without_a_web_server_there_is_nothing_to_print(steered: Project) -> None:
    done = steered.run("nginx-conf", "--set", "site.web=none", code=3)
    assert "site.web=external" in done.err
