"""What is only measured has the shape of an app server, and serves the app that all of them serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.appservers import APP_SERVERS, PEERS
from stack.desired import Plan
from stack.facts import ServerProgram
from stack.plan import plan

from .made import config, facts


def made(tmp_path: Path, engine: str) -> Plan:
    found = config(tmp_path, f"[server]\nengine = '{engine}'\nworkers = 3\nthreads = 5\n")
    return plan(found, facts(found, servers={"app": ServerProgram(f"/srv/shop/.venv/bin/{engine}", "2.8")}))


def test_a_peer_is_no_engine() -> None:
    assert not {*PEERS} & {*APP_SERVERS}


@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_is_planned_as_any_app_server_is(tmp_path: Path, engine: str) -> None:
    found = made(tmp_path, engine)
    service = found.service("app")
    assert service is not None
    assert service.probe is not None
    assert (service.probe.protocol, service.idle_within > 0) == ("http", True)
    assert "{socket}" in service.argv
    assert [each.path for each in found.files if each.path.startswith("apps/app/stackctl_")][:2] == [
        "apps/app/stackctl_entry.py",
        "apps/app/stackctl_proxied.py",
    ]
    assert "keepalive 64;" in next(each.text for each in found.files if each.path == "nginx/site.conf")


def test_granian_is_told_how_many_and_what_to_load(tmp_path: Path) -> None:
    service = made(tmp_path, "granian").service("app")
    assert service is not None
    assert service.argv[0] == "/srv/shop/.venv/bin/granian"
    words = " ".join(service.argv)
    assert "--workers 3 --blocking-threads 5 " in words
    assert "--uds-permissions 0600 " in words
    assert words.endswith("/apps/app/stackctl_proxied:application")


def test_waitress_gets_as_many_processes_as_there_are_workers(tmp_path: Path) -> None:
    found = made(tmp_path, "waitress")
    service = found.service("app")
    assert service is not None
    (script,) = (each for each in found.files if each.path == "apps/app/stackctl_waitress.py")
    assert service.argv[1:] == (f"{found.state_dir}/{script.path}", "{socket}")
    compile(script.text, script.path, "exec")
    assert "for _ in range(3):" in script.text
    assert "threads=5," in script.text
    assert "from stackctl_proxied import application" in script.text
