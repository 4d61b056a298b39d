"""`reload --prove`: what visitors met, held against what the app itself says of its version."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pytest

from .client import ask
from .project import IN_THE_SERVER, Project, until

pytestmark = pytest.mark.e2e

TWO_SITES = """
[apps.one]
target = "one:app"
[apps.two]
target = "two:app"
[sites.one]
app = "one"
listen = "{0}"
server_names = "one.example.org"
[sites.two]
app = "two"
listen = "{0}"
server_names = "two.example.org"
[[smoke]]
path = "/"
site = "two"
text = "that"
[[smoke]]
path = "/"
method = "POST"
"""
# Answers with its environment's STATUS where it is asked for /late, and well elsewhere.
LATE = """
import os

def app(environ, start_response):
    late = environ["PATH_INFO"] == "/late"
    start_response(os.environ["STATUS"] if late else "200 OK", [("Content-Length", "2")])
    return [b"it"]
"""


@dataclass(frozen=True)
class Told:
    """An answer: when it was asked for, when it had come, and which version gave it."""

    began: float
    ended: float
    version: str


class Reader:
    """A visitor of the test's own, who reads the version, on a connection of its own each time."""

    def __init__(self, project: Project) -> None:
        self.told: list[Told] = []
        self._port = project.port
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        while not self._stopped.wait(0.01):
            began = time.time()
            version = ask(self._port, "GET", "/").text
            self.told.append(Told(began, time.time(), version))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()


def proven(project: Project, *arguments: str, code: int = 0) -> Any:
    return project.run("reload", "--prove", "--json", *arguments, code=code).json


@pytest.mark.parametrize(
    "flags", [(), ("--set", "server.protocol=uwsgi"), ("--no-nginx",)], ids=["nginx", "nginx-uwsgi", "none"]
)
def test_proven_reload_says_when_which_code_answered(steered: Project, flags: tuple[str, ...]) -> None:
    steered.up("--workers=1", *flags)  # a second one may read the version after the first has answered
    steered.write("version.txt", "2")
    with Reader(steered) as reader:
        proof = proven(steered)
        until(lambda: len(steered.service("app")["generations"]) == 1, "the old code has ended")
        until(lambda: reader.told[-1].version == "2", "the new code answers")
    assert (proof["ok"], proof["exit_code"], proof["refused"], proof["failed"]) == (True, 0, "", 0)
    assert proof["changes"] == ["app: generation 2 serves"]
    assert all(each["requests"] > 0 and 0 < each["p50"] <= each["p99"] for each in proof["phases"].values())
    assert proof["requests"] == sum(each["requests"] for each in proof["phases"].values())
    timeline = steered.service("app")["timeline"]
    assert list(timeline) == sorted(timeline, key=timeline.__getitem__)
    assert {"started", "ready", "linked", "fenced", "ended"} == set(timeline)
    first, last = ("started", "ended") if "--no-nginx" in flags else ("linked", "fenced")
    assert all(each.ended >= timeline[first] for each in reader.told if each.version == "2")
    assert all(each.began <= timeline[last] for each in reader.told if each.version == "1")
    assert {each.version for each in reader.told} == {"1", "2"}
    app = proof["apps"]["app"]
    assert proof["began"] + app["new_from"] >= timeline[first] - 0.000001  # it is rounded
    assert app["new_from"] > 0
    assert app["old_until"] > 0


def test_connections_that_nginx_closes_as_it_reads_its_files_fail_nobody(steered: Project) -> None:
    steered.up()
    steered.write("stack.toml", '[site]\nmax_body = "1k"\n[[smoke]]\npath = "/pid"\n')
    steered.write("version.txt", "2")
    done = steered.run("reload", "--prove")
    assert "visitors ask for" in done.err
    assert "/pid" in done.err
    assert "\r" not in done.err, "no terminal sees it"
    assert done.err.endswith("app: generation 2 serves\nnginx: read its changed files\n")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [each.split()[::2][:1] + each.split()[2:3] for each in lines[1:4]] == [
        ["before", "0"],
        ["during", "0"],
        ["after", "0"],
    ]
    assert "app: new code from +" in done.out


def test_request_that_the_new_code_does_not_answer_well_ends_it_with_4(steered: Project) -> None:
    steered.write("app.py", LATE)
    steered.write("stack.toml", '[app]\nenv = { STATUS = "200 OK" }\n')
    steered.up()
    steered.write("stack.toml", '[app]\nenv = { STATUS = "500 Oops" }\n')
    done = steered.run("reload", "--prove", "--json", "--path", "/", "--path", "/late", code=4)
    assert "requests failed after the reload:\n    GET /late: answered 500, not below 400" in done.err
    proof = done.json
    assert (proof["ok"], proof["exit_code"], proof["refused"]) == (False, 4, "")
    assert proof["phases"]["before"]["failed"] == 0
    assert 0 < proof["phases"]["after"]["failed"] < proof["phases"]["after"]["requests"]
    assert steered.service("app")["generations"][-1]["number"] == 2, "it was asked to reload, and did"


def test_reload_that_is_refused_is_reported_and_its_exit_code_wins(steered: Project) -> None:
    steered.up()
    steered.write("app.py", IN_THE_SERVER.format("1 / 0"))
    done = steered.run("reload", "--prove", "--json", code=1)
    assert "nothing was changed, the old code serves on" in done.err
    assert "ZeroDivisionError" in done.err
    proof = done.json
    assert "app did not start" in proof["refused"]
    assert (proof["ok"], proof["exit_code"], proof["failed"], proof["apps"]) == (False, 1, 0, {})
    assert all(each["requests"] > 0 for each in proof["phases"].values())
    steered.write("stack.toml", "[app\n")
    done = steered.run("reload", "--prove", code=3)
    assert "was refused after" in done.out
    assert "is not TOML" in done.err
    steered.write("stack.toml", "")


def test_every_site_is_asked_for_what_is_listed_of_it_or_for_its_health(steered: Project) -> None:
    for name in ("one", "two"):
        steered.write(f"{name}.py", LATE)
    listed = TWO_SITES.format(steered.address)
    steered.write("stack.toml", listed.partition("[[smoke]]")[0])
    steered.run("up", "-d")
    proof = proven(steered)
    assert (set(proof["apps"]), proof["failed"]) == ({"one", "two"}, 0)
    steered.write("stack.toml", listed)
    proof = proven(steered, code=4)
    assert set(proof["apps"]) == {"two"}
    assert proof["phases"]["before"]["failures"] == ["GET /: has no 'that' in its body"]


def test_what_cannot_be_proven_is_a_usage_error_and_nothing_is_reloaded(steered: Project) -> None:
    assert "no stack of" in steered.run("reload", "--prove", code=1).err
    steered.write("stack.toml", '[[smoke]]\npath = "/echo"\nmethod = "POST"\n')
    steered.up()
    assert "not as a GET" in steered.run("reload", "--prove", "--path", "/echo", code=2).err
    assert "is not a path" in steered.run("reload", "--prove", "--path", "echo", code=2).err
    assert "belong to --prove" in steered.run("reload", "--json", code=2).err
    assert steered.service("app")["generations"][-1]["number"] == 1
