"""Processes that are killed: what ends with them, what is replaced."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import psutil
import pytest

from .client import Load
from .project import Project, lives, until

pytestmark = pytest.mark.e2e
together = pytest.mark.xdist_group("crashes of one stack")


def test_killed_supervisor_takes_everything_with_it(steered: Project) -> None:
    steered.up()
    supervisor = psutil.Process(steered.status()["pid"])
    family = [supervisor, *supervisor.children(recursive=True)]
    assert len(family) >= 6  # it, the app server and two workers, nginx and a worker for each CPU
    supervisor.kill()
    until(lambda: not any(map(lives, family)), "all are gone")
    assert steered.run("status", code=4).out == ""


def test_stack_starts_over_what_a_killed_one_left(steered: Project) -> None:
    steered.up()
    supervisor = psutil.Process(steered.status()["pid"])
    family = [supervisor, *supervisor.children(recursive=True)]
    supervisor.kill()
    until(lambda: not any(map(lives, family)), "all are gone")
    assert (steered.runtime / "control.sock").exists()
    steered.up()
    assert steered.get("/").text == "1"
    assert steered.pid("app") not in [each.pid for each in family]


@together
def test_killed_worker_is_replaced(served: Project) -> None:
    master, workers = served.pid("app"), served.workers("app")
    os.kill(min(workers), signal.SIGKILL)
    until(
        lambda: len(now := served.workers("app")) == len(workers) and min(workers) not in now, "there are as many again"
    )
    with Load(served.port, slow=False) as load:
        until(lambda: load.good > 50, "requests are answered")
    assert load.failed == []
    assert served.pid("app") == master


@together
def test_killed_app_server_is_replaced_and_the_link_moves(served: Project) -> None:
    link = served.runtime / "sockets" / "app.http.sock"
    master, workers, before = served.pid("app"), served.workers("app"), served.service("app")
    number, restarts = before["generations"][0]["number"], before["restarts"]
    successor = f"app.g{number + 1}.sock"
    assert link.readlink().name == f"app.g{number}.sock"
    os.kill(master, signal.SIGKILL)
    until(lambda: link.readlink().name != f"app.g{number}.sock", "the link moves")
    assert link.readlink().name == successor
    until(lambda: served.service("app")["state"] == "serving", "a new generation serves")
    assert served.get("/").text == "1"
    app = served.service("app")
    assert app["restarts"] == restarts + 1
    assert "SIGKILL" in app["last_end"]
    assert app["generations"][0]["number"] == number + 1
    until(lambda: not any(psutil.pid_exists(each) for each in workers), "no worker of the old one is left")
    until(lambda: len(served.workers("app")) == len(workers), "there are as many workers as before")
    assert [each.name for each in link.parent.glob("*.sock") if not each.is_symlink()] == [successor]


@together
def test_killed_nginx_is_replaced_on_the_same_port(served: Project) -> None:
    app, master, workers = served.pid("app"), served.pid("nginx"), served.workers("nginx")
    restarts = served.service("nginx")["restarts"]
    os.kill(master, signal.SIGKILL)
    until(lambda: served.service("nginx")["restarts"] == restarts + 1, "the restart is told")
    until(lambda: served.service("nginx")["state"] == "serving", "it serves again")
    assert served.pid("nginx") != master
    until(lambda: not any(psutil.pid_exists(each) for each in workers), "no worker of the old one is left")
    assert served.get("/").text == "1"
    assert served.pid("app") == app
    (line,) = (each for each in served.run("status").out.splitlines() if each.split()[1:2] == ["nginx"])
    assert "restarts, the last: SIGKILL" in line


@together
def test_connections_wait_while_nginx_is_replaced(served: Project) -> None:
    """The supervisor holds the listening socket: whoever connects in between is answered by the next nginx."""
    master, restarts = served.pid("nginx"), served.service("nginx")["restarts"]
    os.kill(master, signal.SIGSTOP)
    with contextlib.suppress(ProcessLookupError):  # the supervisor kills what stays stopped, too
        os.kill(master, signal.SIGKILL)
    assert served.get("/").text == "1"
    until(lambda: served.service("nginx")["restarts"] == restarts + 1, "the restart is told")
    until(lambda: served.service("nginx")["state"] == "serving", "it serves again")


def test_worker_that_ends_itself_costs_its_request_only(steered: Project) -> None:
    steered.write(
        "app.py",
        "import os\n\n\ndef app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/exit':\n        os._exit(1)\n"
        "    start_response('200 OK', [('Content-Length', '2')])\n    return [b'ok']\n",
    )
    steered.up("--workers", "2")
    for _ in range(3):
        assert steered.get("/exit").status == 502
        assert steered.get("/").text == "ok"
    assert steered.service("app")["restarts"] == 0


@pytest.mark.parametrize("engine", ["bundled", "uwsgi", "gunicorn"])
def test_supervisor_killed_in_the_midst_of_a_reload_leaves_nothing_in_the_way(steered: Project, engine: str) -> None:
    """In random moments: `KILL_SEED` replays them, `KILLS` of them are tried of each app server."""
    moments, others = (
        random.Random(int(os.environ["KILL_SEED"])),
        {"bundled": "http", "uwsgi": "http", "gunicorn": "auto"},
    )
    for _ in range(int(os.environ.get("KILLS", "1"))):
        steered.up("--workers", "2", "--server", engine, "--set", "server.keep_previous=true")
        supervisor = psutil.Process(steered.status()["pid"])
        reload = steered.start("reload", "--set", f"server.protocol={others[engine]}", "--set=site.max_body=5m")
        until(lambda: len(steered.service("app")["generations"]) > 1, "the new generation is started")
        time.sleep(moments.uniform(0, 1.5))  # any moment will do: nothing is waited for
        supervisor.kill()
        reload.process.wait()
        until(lambda: not steered.processes(), "nothing runs on")
        assert steered.run("status", code=4).out == ""
        steered.up()
        assert steered.get("/").text == "1"
        assert [each["restarts"] for each in steered.status()["services"]] == [0, 0]
        steered.run("down")
        steered.nothing_is_left()
