"""`smoke`: the whole life of a stack beside everything else, after which nothing is left."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from .project import IN_THE_SERVER, STATIC, Done, Foreground, Project, until

pytestmark = pytest.mark.e2e

OUTSIDE_GITHUB = {"GITHUB_ACTIONS": ""}
# Once it was asked for /flip, code that is loaded afterwards answers with another status.
FLIPPED = """
import os

STATUS = "404 Not Found" if os.path.exists({flag!r}) else "200 OK"

def app(environ, start_response):
    if environ["PATH_INFO"] == "/flip":
        open({flag!r}, "w").close()
    start_response(STATUS, [("Content-Length", "0")])
    return [b""]
"""
STAYS = 'import subprocess; subprocess.Popen(["sleep", "600"], start_new_session=True)'


def aside(project: Project) -> Path:
    """Where temporary files of the command go."""
    directory = project.place / "tmp"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    return directory


def nothing_is_left(project: Project) -> None:
    project.nothing_is_left()
    assert not list(aside(project).iterdir())
    assert not project.state.exists()


def smoke(project: Project, *arguments: str, code: int = 0, **environment: str) -> Done:
    env = {**OUTSIDE_GITHUB, "TMPDIR": str(aside(project)), **environment}
    done = project.run("smoke", *arguments, code=code, env=env)
    assert not list(aside(project).iterdir())
    return done


def started(project: Project, *arguments: str) -> Foreground:
    return project.start("smoke", *arguments, env={**OUTSIDE_GITHUB, "TMPDIR": str(aside(project))})


def checks(done: Done) -> dict[str, Any]:
    return {each["name"]: each for each in done.json["checks"]}


def test_example_passes_in_every_way_and_leaves_nothing(example: Project) -> None:
    done = smoke(example, "--workers", "3", "--junit", "smoke.xml")
    nothing_is_left(example)
    lines = done.out.splitlines()
    assert lines[0].startswith("ok")
    assert "FAIL" not in done.out
    assert "\x1b" not in done.out + done.err
    assert max(map(len, lines)) <= 80
    for name in ("app server of app", "GET /", "GET /static/style.css", "GET /no-such-page", "POST /guestbook", "down"):
        assert f"ms  {name} " in done.out
    assert "none failed; p50" in done.out
    assert "takes it down" in done.err
    suite = ET.parse(example.directory / "smoke.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == (str(sum(each.startswith("ok ") for each in lines)), "0")


def test_json_tells_what_visitors_met_during_the_reload(steered: Project) -> None:
    done = smoke(steered, "--json", "/", "/pid")
    nothing_is_left(steered)
    reload = checks(done)["reload"]
    assert done.json["ok"]
    assert reload["requests"] > 0
    assert reload["failed"] == 0
    assert 0 < reload["p50"] <= reload["p99"]


def test_project_without_paths_is_asked_for_its_health(steered: Project) -> None:
    done = smoke(steered, "--json", "--set", "app.health=/pid")
    kinds = dict.fromkeys(each["kind"] for each in done.json["checks"])
    assert list(kinds) == ["up", "hop", "reload", "down"]
    assert checks(done)["reload"]["requests"] > 0
    nothing_is_left(steered)


def test_path_that_fails_is_named_and_the_rest_is_tried(steered: Project) -> None:
    done = smoke(steered, "/say/hello", "/nope", "/pid", "--json", "--junit", "smoke.xml", code=4)
    nothing_is_left(steered)
    failed = [each for each in done.json["checks"] if not each["ok"]]
    assert [each["name"] for each in failed] == ["GET /nope"]
    assert failed[0]["problem"] == "answered 404, not below 400"
    assert "stackctl: smoke: GET /nope: answered 404" in done.err
    assert any("said hello" in each for each in done.json["logs"]["app"])
    assert any("/nope" in each for each in done.json["logs"]["access"])
    assert "said hello" in done.err
    assert "::error" not in done.err
    failures = ET.parse(steered.directory / "smoke.xml").getroot().findall(".//testcase[failure]")
    assert [each.get("name") for each in failures] == ["GET /nope"]


def test_what_is_listed_is_held_against_what_comes(steered: Project) -> None:
    steered.write(
        "stack.toml",
        f"{STATIC}"
        '[[smoke]]\npath = "/echo"\nmethod = "POST"\nbody = "a\\nb"\ncontent_type = "text/plain"\ntext = "a"\n'
        '[[smoke]]\npath = "/static/hello.txt"\nheader = { ETag = "", Content-Type = "text/plain" }\n'
        '[[smoke]]\npath = "/pid"\ntext = "no number"\n'
        '[[smoke]]\npath = "/slow?seconds=2"\nmax_seconds = 0.1\n',
    )
    found = checks(smoke(steered, "--json", code=4))
    nothing_is_left(steered)
    assert found["POST /echo"]["ok"]
    assert found["GET /static/hello.txt"]["ok"]
    assert "has no 'no number'" in found["GET /pid"]["problem"]
    assert found["GET /slow?seconds=2"]["problem"] == "no answer: took too long"
    assert found["reload"]["ok"]


def test_app_that_cannot_be_imported_ends_it_with_3_and_the_traceback(steered: Project) -> None:
    steered.write("app.py", "1 / 0\n")
    done = smoke(steered, "--junit", "smoke.xml", code=3)
    nothing_is_left(steered)
    assert "ZeroDivisionError: division by zero" in done.err
    assert "FAIL" in done.out
    assert "ZeroDivisionError" in (steered.directory / "smoke.xml").read_text()


def test_app_that_breaks_in_the_server_ends_it_with_4_and_the_traceback(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format("1 / 0"))
    done = smoke(steered, code=4)
    nothing_is_left(steered)
    assert "ZeroDivisionError: division by zero" in done.err
    assert "app did not start" in done.err


def test_wrong_setting_ends_it_with_3_and_is_in_the_report(steered: Project) -> None:
    steered.write("stack.toml", '[[smoke]]\npath = "/"\n[[smoke]]\npath = "/"\nstatus = "good"\n')
    done = smoke(steered, "--junit", "smoke.xml", code=3)
    (steered.directory / "stack.toml").unlink()
    nothing_is_left(steered)
    assert "smoke[1].status" in done.err
    assert "smoke[1].status" in (steered.directory / "smoke.xml").read_text()


def test_reload_that_changes_an_answer_fails(steered: Project) -> None:
    steered.write("app.py", FLIPPED.format(flag=str(steered.event("flag"))))
    done = smoke(steered, "/", "/flip", code=4)
    nothing_is_left(steered)
    assert "requests failed" in done.out
    assert "answered 404; before, it was 200" in done.err


def test_process_that_the_app_leaves_behind_is_named_and_ended(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format(STAYS))
    done = smoke(steered, code=4)
    nothing_is_left(steered)
    assert "outlive the stack" in done.out
    assert "sleep 600" in done.err


def test_running_stack_of_the_project_is_not_touched(steered: Project) -> None:
    steered.up("--workers", "1")
    before, files, runtime = steered.status(), steered.rendered(), sorted(steered.runtime.rglob("*"))
    smoke(steered, "/", "/pid")
    assert steered.status() == before
    assert steered.rendered() == files
    assert sorted(steered.runtime.rglob("*")) == runtime
    assert "FAIL" not in steered.run("health").out
    assert "stackctl-visitor" not in steered.run("logs", "access").out


def test_commands_do_not_see_the_stack_of_a_smoke(steered: Project) -> None:
    go_on, begun = steered.event("go-on"), steered.event("go-on.begun")
    running = started(steered, f"/wait?for={go_on}")
    until(begun.exists, "the request is in hand")
    assert steered.run("status", "--json", code=4).json is None
    assert "nothing was running" in steered.run("down").err
    go_on.touch()
    assert running.wait() == 0
    nothing_is_left(steered)


def test_two_at_once_do_not_meet(steered: Project) -> None:
    both = [started(steered, "/"), started(steered, "/pid")]
    assert [each.wait() for each in both] == [0, 0]
    nothing_is_left(steered)


def test_github_gets_annotations_and_nobody_else_may_give_it_commands(steered: Project) -> None:
    done = smoke(steered, "/say/::error::forged", "/nope", "/nope?a,b", code=4, GITHUB_ACTIONS="true")
    nothing_is_left(steered)
    lines = done.err.splitlines()
    ours = [each for each in lines if each.startswith("::error")]
    assert ours[0] == "::error title=smoke%3A GET /nope::answered 404, not below 400"
    assert ours[1].startswith("::error title=smoke%3A GET /nope?a%2Cb::")
    stopped = next(each for each in lines if each.startswith("::stop-commands::"))
    again = lines.index(f"::{stopped.removeprefix('::stop-commands::')}::")
    assert all(lines.index(stopped) < number < again for number, each in enumerate(lines) if "forged" in each)
    assert lines.index(ours[0]) > again
    assert "::" not in done.out.replace("::error::forged", "")


def test_junit_file_that_cannot_be_written_is_said_before_anything_starts(steered: Project) -> None:
    done = smoke(steered, "--junit", "nowhere/smoke.xml", code=2)
    assert "nowhere is not a directory" in done.err
    assert "starting" not in done.err
    nothing_is_left(steered)


@pytest.mark.parametrize(
    ("said", "number"),
    [("starting", signal.SIGINT), ("tries every hop", signal.SIGTERM), ("reloads while", signal.SIGINT)],
)
def test_interrupted_between_two_steps_it_leaves_nothing(steered: Project, said: str, number: signal.Signals) -> None:
    running = started(steered, "/pid")
    running.says(said)
    running.process.send_signal(number)
    assert running.wait() == 130
    nothing_is_left(steered)
    assert "Traceback" not in running.err


@pytest.mark.parametrize(
    ("count", "number"),
    [(2, signal.SIGINT), (3, signal.SIGTERM), (5, signal.SIGINT), (6, signal.SIGTERM)],
)
def test_interrupted_while_processes_start_it_leaves_nothing(
    steered: Project, count: int, number: signal.Signals
) -> None:
    running = started(steered, "/slow?seconds=1")
    until(lambda: len(steered.processes()) >= count, f"{count} processes run")
    running.process.send_signal(number)
    assert running.wait() in (130, -signal.SIGINT)  # which Python ends itself by if it was in an eval
    nothing_is_left(steered)


def test_interrupted_as_the_terminal_goes_it_leaves_nothing(steered: Project) -> None:
    running = started(steered, "/slow?seconds=1")
    running.says("asks 1 path")
    running.process.send_signal(signal.SIGHUP)
    assert running.wait() == 130
    nothing_is_left(steered)


def test_interrupted_while_it_ends_it_leaves_nothing(steered: Project) -> None:
    running = started(steered, "/")
    running.says("takes it down")
    running.process.send_signal(signal.SIGINT)
    assert running.wait() in (130, 0, -signal.SIGINT)  # it may have ended already
    nothing_is_left(steered)


def test_second_signal_does_not_wait_for_requests_in_hand(steered: Project) -> None:
    never, begun = steered.event("never"), steered.event("never.begun")
    running = started(steered, f"/wait?for={never}")
    until(begun.exists, "the request is in hand")
    running.process.send_signal(signal.SIGINT)
    running.process.send_signal(signal.SIGTERM)
    assert running.wait() == 130
    nothing_is_left(steered)


def test_stack_of_a_killed_smoke_ends_too(steered: Project) -> None:
    go_on, begun = steered.event("go-on"), steered.event("go-on.begun")
    running = started(steered, f"/wait?for={go_on}")
    until(begun.exists, "the request is in hand")
    running.process.kill()
    running.wait()
    go_on.touch()
    steered.nothing_is_left()
    shutil.rmtree(aside(steered))
