"""The chains of limits, met: what `explain limits` tells is what the programs are given, and what they do."""

from __future__ import annotations

import re
from typing import Any

import psutil
import pytest

from .conftest import Copy
from .project import Project

pytestmark = pytest.mark.e2e

WAYS = pytest.mark.parametrize(
    ("engine", "protocol"),
    [
        ("bundled", "uwsgi"),
        ("bundled", "http"),
        ("bundled", "fastcgi"),
        ("bundled", "scgi"),
        ("uwsgi", "uwsgi"),
        ("gunicorn", "http"),
    ],
)
TAKES_LITTLE = """
from flask import Flask, request

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1000


@app.post("/")
def take():
    return str(len(request.get_data()))


@app.get("/")
def index():
    return "hello"


@app.errorhandler(413)
def too_large(error):
    return "my own page", 413
"""


def told(project: Project) -> dict[str, Any]:
    """The limits of the running stack, by topic and name."""
    chains = project.run("explain", "limits", "--json").json
    assert all(each["holds"] for each in chains)
    return {f"{chain['topic']} {each['name']}": each for chain in chains for each in chain["limits"]}


def given(project: Project, name: str) -> str:
    """What the process that serves was started with: its command line, and the files of its service."""
    argv = psutil.Process(project.pid(name)).cmdline()
    folder = "nginx" if name == "nginx" else f"apps/{name}"
    texts = [
        each.read_text("utf-8")
        for each in (project.state / folder).glob("*")
        if each.suffix in (".conf", ".ini", ".py")
    ]
    return "\n".join([" ".join(argv), *texts])


def count(text: str) -> float:
    """A number as nginx writes it, in seconds or bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "s": 1, "k": 1024, "m": 1024**2}[unit]


@WAYS
def test_what_is_told_is_met_a_head_below_the_limit_passes_and_one_above_is_refused_by_nginx(
    steered: Project, engine: str, protocol: str
) -> None:
    steered.up(
        *(f"--set=server.{key}" for key in (f"engine={engine}", f"protocol={protocol}", "timeout=7", "backlog=99"))
    )
    limits = told(steered)
    nginx, app = given(steered, "nginx"), given(steered, "app")
    for name in ("time read", "time shutdown", "body web body"):
        found = re.findall(rf"^ *{limits[name]['key']} ([^;]+);", nginx, re.MULTILINE)
        assert [count(each) for each in found] == [limits[name]["value"]], name
    lines, size = re.findall(r"large_client_header_buffers ([0-9]+) ([0-9a-z]+);", nginx)[0]
    assert count(size) == limits["header line"]["value"]
    for name in ("time request", "time drain", "backlog app"):
        if limits[name]["key"] == "(the supervisor)":
            continue  # it is the plan's stop_within, which tests/plan/test_limits.py compares
        key = {"(its guard)": "TIMEOUT"}.get(limits[name]["key"], limits[name]["key"])
        value = re.findall(rf"(?:^| ){key}(?: ?= ?| )([0-9.]+)", app, re.MULTILINE)
        assert [float(each) for each in value] == [limits[name]["value"]], name

    longest = int(limits["header line"]["value"])
    field = "a" * (longest - len("X-0: \r\n") - 2)
    assert steered.get("/", **{f"X-{number}": field for number in range(int(lines))}).text == "1"
    assert steered.get("/?" + "a" * (longest - len("GET /? HTTP/1.1\r\n") - 2)).text == "1"
    for headers in ({"X-0": field + "aaaaa"}, {f"X-{number}": field for number in range(int(lines) + 1)}):
        refused = steered.get("/", **headers)
        assert (refused.status, "nginx" in refused.text) == (400, True)
    assert steered.get("/?" + "a" * longest).status == 414
    assert " 502 " not in (steered.state / "log" / "access.log").read_text()


def test_the_app_decides_on_bodies_with_a_page_of_its_own(copy: Copy) -> None:
    project = copy(None)
    project.write("app.py", TAKES_LITTLE)
    project.up()
    assert told(project)["body app body"]["value"] == 1000
    assert project.post("/", b"x" * 1000).text == "1000"
    refused = project.post("/", b"x" * 1001)
    assert (refused.status, refused.text) == (413, "my own page")
    done = project.run("reload", "--set", "site.max_body=999", code=3)
    assert "max_body = 999 is less than the app's own MAX_CONTENT_LENGTH = 1000" in done.err


def test_explain_shows_a_contradiction_within_80_columns_and_says_who_decided(example: Project) -> None:
    done = example.run("explain", "limits", "--set", "server.stop_within=3")
    assert "time of app  CONTRADICTED" in done.out
    assert "[server] stop_within (--set server.stop_within)" in done.out
    assert "[server] timeout (default)" in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 80
    assert "`up` would refuse this here: [server] stop_within = 3" in done.err


def test_an_unknown_topic_names_the_known_ones(example: Project) -> None:
    assert "There is: limits." in example.run("explain", "limit", code=2).err
