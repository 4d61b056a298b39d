"""What served before stays parked, if it is wished, and serves again at once."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from .client import Load
from .project import Project, lives, until

pytestmark = pytest.mark.e2e

KEEPS = "server.keep_previous=true"


def generations(project: Project) -> dict[int, str]:
    """State by number."""
    return {each["number"]: each["state"] for each in project.service("app")["generations"]}


def second_version(project: Project, *flags: str) -> None:
    project.up("--workers", "1", *flags)
    project.write("version.txt", "2")
    project.run("reload")
    assert project.get("/").text == "2"


@pytest.mark.parametrize("engine", ["bundled", "uwsgi", "gunicorn"])
def test_what_served_before_serves_again_at_once_and_again(steered: Project, engine: str) -> None:
    second_version(steered, "--set", KEEPS, "--server", engine)
    assert generations(steered) == {1: "parked", 2: "serving"}
    assert "parked" in steered.run("status").out
    pids = {each["pid"] for each in steered.service("app")["generations"]}
    with Load(steered.port) as load:
        for number, version in ((1, "1"), (2, "2"), (1, "1")):
            done = steered.run("rollback")
            assert f"app: generation {number} serves again" in done.err
            assert steered.get("/").text == version
            assert generations(steered) == {number: "serving", 3 - number: "parked"}
            until(lambda asked=load.good: load.good > asked + 10, "requests are answered")  # type: ignore[misc]
    assert load.failed == []
    assert {each["pid"] for each in steered.service("app")["generations"]} == pids, "nothing was started"
    assert steered.service("app")["restarts"] == 0


def test_a_reload_after_a_rollback_brings_the_new_and_parks_what_served(steered: Project) -> None:
    second_version(steered, "--set", KEEPS)
    steered.run("rollback")
    steered.write("version.txt", "3")
    steered.run("reload")
    assert steered.get("/").text == "3"
    until(lambda: generations(steered) == {1: "parked", 3: "serving"}, "the one rolled back from is retired")
    steered.run("rollback")
    assert steered.get("/").text == "1"


def test_a_rolled_back_app_that_is_killed_comes_back(steered: Project) -> None:
    """Its files are those of the newest; but what was wished when it started is what is started."""
    second_version(steered, "--set", KEEPS)
    steered.run("rollback")
    os.kill(steered.pid("app"), signal.SIGKILL)
    until(lambda: steered.service("app")["restarts"] == 1, "the restart is told")
    until(lambda: steered.service("app")["state"] == "serving", "it serves again")
    assert steered.get("/").status == 200


def test_there_is_nothing_to_roll_back_to(steered: Project) -> None:
    second_version(steered)
    until(lambda: generations(steered) == {2: "serving"}, "the old one is retired")
    refused = steered.run("rollback", code=1)
    assert "nothing to roll back to" in refused.err
    assert "keep_previous = true" in refused.err
    assert steered.get("/").text == "2"


def test_a_parked_one_that_is_killed_is_gone_and_not_replaced(steered: Project) -> None:
    second_version(steered, "--set", KEEPS)
    (parked,) = [each["pid"] for each in steered.service("app")["generations"] if each["state"] == "parked"]
    os.kill(parked, signal.SIGKILL)
    until(lambda: generations(steered) == {2: "serving"}, "it is gone")
    assert "nothing to roll back to" in steered.run("rollback", code=1).err
    assert steered.get("/").text == "2"
    assert steered.service("app")["restarts"] == 0


def test_a_parked_one_outlives_a_refused_reload(steered: Project) -> None:
    second_version(steered, "--set", KEEPS)
    works = (steered.directory / "app.py").read_text()
    steered.write(
        "app.py", "import sys\nif 'stackctl_entry' in sys.modules:\n    raise LookupError('no database')\n" + works
    )
    refused = steered.run("reload", code=1)
    assert "no database" in refused.err
    assert generations(steered) == {1: "parked", 2: "serving"}
    steered.run("rollback")
    assert steered.get("/").text == "1"


def test_down_ends_a_parked_one_too(steered: Project) -> None:
    second_version(steered, "--set", KEEPS)
    family = [psutil.Process(each["pid"]) for each in steered.service("app")["generations"]]
    assert len(family) == 2
    steered.run("down")
    assert not any(map(lives, family))


def test_a_reload_that_keeps_none_retires_the_parked_one(steered: Project) -> None:
    second_version(steered, "--set", KEEPS)
    steered.run("reload", "--set", "server.keep_previous=false")
    until(lambda: generations(steered) == {3: "serving"}, "all others are retired")
    steered.run("rollback", code=1)


def test_nothing_is_parked_across_a_change_of_protocol(steered: Project) -> None:
    second_version(steered, "--set", KEEPS)
    go_on, begun = steered.event("go-on"), steered.event("go-on.begun")
    visitor = steered.start_client(f"/wait?for={go_on}")
    until(begun.exists, "the request is in hand")
    steered.run("reload", "--set", "server.protocol=uwsgi")
    refused = steered.run("rollback", code=1)
    assert "not across a\n" in refused.err
    go_on.touch()
    assert visitor() == "waited"
    until(lambda: generations(steered) == {3: "serving"}, "all others are retired")
    steered.write("version.txt", "4")
    steered.run("reload")
    steered.run("rollback")
    assert steered.get("/").text == "2"
