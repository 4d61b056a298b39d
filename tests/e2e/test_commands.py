"""The commands beside a stack that runs detached: what they print, what they end with, what they remember."""

from __future__ import annotations

import json
import subprocess
from typing import Any, cast

import psutil
import pytest

from stack.supervisor.runner import is_stopped

from .project import STATIC, Project, listens, until

pytestmark = pytest.mark.e2e
together = pytest.mark.xdist_group("commands beside one stack")


def test_up_detached_prints_the_url_alone_on_stdout(steered: Project) -> None:
    done = steered.up()
    assert done.out == f"{steered.url}\n"
    assert "capacity" in done.err
    assert steered.get("/").status == 200


def test_commands_work_from_a_subdirectory(steered: Project) -> None:
    steered.write("stack.toml", STATIC)
    steered.up()
    inside = steered.directory / "static"
    assert steered.run("status", cwd=inside).out.startswith("site")
    assert steered.run("health", cwd=inside).out.count("ok ") == 9
    assert "is ready" in steered.run("logs", cwd=inside).out
    assert steered.run("diff", "--exit-code", cwd=inside).out == ""
    assert "stack.toml" in steered.run("config", "--origin", cwd=inside).out
    assert steered.run("reload", cwd=inside).err.endswith("app: generation 2 serves\n")
    assert "stopped" in steered.run("down", cwd=inside).err


def test_project_can_be_named_from_anywhere(steered: Project) -> None:
    anywhere = steered.place
    place = ("--project", str(steered.directory))
    steered.run(*place, "up", "-d", "--listen", steered.address, cwd=anywhere)
    assert steered.run(*place, "status", "--json", cwd=anywhere).json["project"] == str(steered.directory)
    steered.run(*place, "down", cwd=anywhere)


@together
def test_status_tells_services_and_generations(served: Project) -> None:
    status = served.run("status", "--json").json
    assert status["url"] == served.url
    assert [each["name"] for each in status["services"]] == ["app", "nginx"]
    assert all(each["state"] == "serving" and each["restarts"] == 0 for each in status["services"])
    assert psutil.Process(status["pid"]).children()
    for each in status["services"]:
        assert psutil.Process(each["generations"][0]["pid"]).ppid() == status["pid"]


@together
def test_status_tells_what_the_workers_do(served: Project) -> None:
    before = workers(served)
    for _ in range(5):
        assert served.get("/").status == 200
    until(lambda: requests(workers(served)) >= requests(before) + 5, "its requests are told")
    told = served.run("status").out
    assert f"{len(before)} workers, " in told
    (nginx,) = (each for each in served.run("status", "--json").json["services"] if each["name"] == "nginx")
    assert nginx["generations"][0]["workers"] is None


def workers(project: Project) -> list[dict[str, Any]]:
    (app,) = (each for each in project.run("status", "--json").json["services"] if each["name"] == "app")
    return cast("list[dict[str, Any]]", app["generations"][0]["workers"])


def requests(found: list[dict[str, Any]]) -> int:
    return sum(each["requests"] for each in found)


def test_health_passes_every_hop(steered: Project) -> None:
    steered.write("stack.toml", STATIC)
    steered.up()
    hops = steered.run("health", "--json").json
    assert [each["hop"] for each in hops] == [
        "config",
        "import",
        "process",
        "process",
        "socket",
        "app",
        "web",
        "site",
        "static",
    ]
    assert all(each["ok"] for each in hops)


def test_health_names_the_hop_that_is_broken(steered: Project) -> None:
    steered.write("stack.toml", STATIC)
    steered.up()
    for each in (steered.directory / "static").iterdir():
        each.unlink()
    done = steered.run("health", code=4)
    assert done.out.count("FAIL") == 1
    assert "static file of site" in done.out
    assert "answered 404" in done.out


def test_health_without_a_stack_is_unhealthy(example: Project) -> None:
    out = example.run("health", code=4).out
    assert out.count("FAIL") == 1
    assert "`stackctl up` starts it" in out


@together
def test_health_names_broken_code_that_does_not_run_yet(served: Project) -> None:
    works = (served.directory / "app.py").read_text()
    served.write("app.py", "import there_is_no_such_module\n")
    hops = served.run("health", "--json", code=4).json
    served.write("app.py", works)
    (broken,) = [each for each in hops if not each["ok"]]
    assert broken["hop"] == "import"
    assert "there_is_no_such_module" in broken["problem"]


@together
def test_health_names_a_process_that_is_stopped(served: Project) -> None:
    before = len(served.workers("nginx"))

    def named() -> bool:
        worker = psutil.Process(min(served.workers("nginx")))
        worker.suspend()
        hops = served.run("health", "--json", code=None).json
        return f"kill -CONT {worker.pid}" in [
            each["hint"] for each in hops if each["hop"] == "process" and not each["ok"]
        ]

    until(named, "it is named; once in a while, the supervisor has replaced it before")
    until(lambda: len(served.workers("nginx")) == before, "it is replaced")
    until(lambda: not any(map(is_stopped, served.workers("nginx"))), "and nobody is stopped any more")


def test_health_names_a_socket_that_is_gone_and_reload_puts_it_right(steered: Project) -> None:
    steered.up()
    for each in (steered.runtime / "sockets").iterdir():
        if not each.is_symlink():
            each.unlink()
    hops = steered.run("health", "--json", code=4).json
    first = next(each for each in hops if not each["ok"])
    assert first["hop"] == "socket"
    assert "which is gone" in first["problem"]
    assert "`stackctl reload`" in first["hint"]
    steered.run("reload")
    steered.run("health")


@together
def test_logs_show_each_service(served: Project) -> None:
    served.get("/say/something")
    until(lambda: "said something" in served.run("logs", "app").out, "the app's line is in the log")
    until(lambda: "GET /say/something" in served.run("logs", "access").out, "the request is in the access log")
    assert "app[" not in served.run("logs", "stack").out
    assert len(served.run("logs", "-n", "1").out.splitlines()) == 1
    done = served.run("logs", "nothing", code=2)
    assert "There is: access, app" in done.err


@together
def test_logs_follow(served: Project) -> None:
    served.get("/say/before")
    until(lambda: "said before" in served.log(), "it is in the log")
    follower = served.start("logs", "--follow", "app")
    follower.says("said before")
    served.get("/say/later")
    follower.says("said later")
    follower.process.terminate()
    follower.process.wait()


@together
def test_logs_into_a_closed_pipe_end_quietly(served: Project) -> None:
    argv = [*served.command, "logs", "--follow"]
    reader = subprocess.Popen(
        argv, cwd=served.directory, env=served.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert reader.stderr is not None
    assert reader.stdout.readline()
    reader.stdout.close()
    until(lambda: served.get("/say/more").status and reader.poll() is not None, "it ends, once it has more to say")
    assert reader.stderr.read() == b""
    reader.stderr.close()


def test_diff_shows_what_reload_would_change(steered: Project) -> None:
    steered.write("stack.toml", '[site]\nmax_body = "32m"\n')
    steered.up()
    steered.write("stack.toml", '[site]\nmax_body = "7m"\n[server]\nthreads = 2\n')
    done = steered.run("diff", "--exit-code", code=1)
    assert "-    client_max_body_size 32m;" in done.out
    assert "+    client_max_body_size 7m;" in done.out
    assert "--threads 2" in done.out
    steered.run("reload")
    assert steered.run("diff", "--exit-code").out == ""
    assert "client_max_body_size 7m;" in (steered.state / "nginx" / "site.conf").read_text()


def test_config_tells_where_a_value_comes_from(example: Project) -> None:
    done = example.run("config", "--origin", "--workers", "3", env={"STACKCTL_SERVER_THREADS": "7"})
    origins = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in done.out.splitlines()}
    assert origins["server.workers"] == "--workers"
    assert origins["server.threads"] == "environment STACKCTL_SERVER_THREADS"
    assert origins["app.target"] == "stack.toml"
    assert origins["site.max_body"] == "default"
    assert json.loads(example.run("config", "--json").out)["apps"]["app"]["target"] == "app:app"


def app_workers(project: Project, count: int) -> set[int]:
    """The workers of the app: the site answers as soon as the first of them is there."""
    return until(lambda: found if len(found := project.workers("app")) == count else set(), f"{count} workers")


def test_flags_of_up_are_remembered_by_reload(steered: Project) -> None:
    steered.up("--workers", "3")
    before = app_workers(steered, 3)
    steered.run("reload")
    after = app_workers(steered, 3)
    assert not before & after
    assert steered.get("/pid").status == 200


def test_flags_of_reload_are_remembered_by_the_next(steered: Project) -> None:
    steered.up("--workers", "3")
    steered.run("reload", "--workers", "1")
    app_workers(steered, 1)
    steered.run("reload")
    app_workers(steered, 1)


def test_reload_moves_the_site_to_another_port(steered: Project) -> None:
    steered.up()
    before, steered.port = steered.port, steered.port + 1 if not listens(steered.port + 1) else steered.port - 1
    steered.run("reload", "--listen", steered.address)
    until(lambda: not listens(before), "the old port is free")
    assert steered.get("/").status == 200
    assert steered.status()["url"] == steered.url
    assert all(each["ok"] for each in steered.run("health", "--json").json)


def test_down_twice_is_fine_and_then_status_is_4(steered: Project) -> None:
    steered.up()
    assert "stopped" in steered.run("down").err
    steered.nothing_is_left()
    assert "nothing was running" in steered.run("down").err
    assert steered.run("status", code=4).out == ""
    assert steered.run("status", "--json", code=4).json is None


def test_stack_can_be_seen_and_ended_although_its_file_is_broken(steered: Project) -> None:
    steered.up()
    steered.write("stack.toml", "[server\n")
    assert steered.run("status", "--json").json["url"] == steered.url
    assert "is not TOML" in steered.run("reload", code=3).err
    assert "stopped" in steered.run("down").err
    (steered.directory / "stack.toml").unlink()


def test_reload_without_a_stack_says_so(steered: Project) -> None:
    assert "`stackctl up` starts it" in steered.run("reload", code=1).err


def test_runtime_directory_named_by_a_flag_is_found_without_it(steered: Project) -> None:
    steered.up("--set", f"stack.runtime_dir={steered.place / 'run'}")
    assert (steered.place / "run" / "control.sock").exists()
    assert steered.status()["url"] == steered.url
    steered.run("reload")
    steered.run("down")
    assert not (steered.place / "run").exists()
