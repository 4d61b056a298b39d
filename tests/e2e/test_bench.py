"""`bench`: real app servers in turn behind nginx, under wrk; what it reports, and what it refuses to report."""

from __future__ import annotations

import shutil
import signal
from xml.etree import ElementTree as ET

import pytest

from .conftest import Copy
from .project import Done, Project

pytestmark = pytest.mark.e2e
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt install wrk")

QUICK = ("--seconds", "1", "--rounds", "1", "--workers", "1")
# Each process answers so many requests well.
TIRES = """
count = 0

def app(environ, start_response):
    global count
    count += 1
    start_response("200 OK" if count < 50 else "503 Service Unavailable", [("Content-Length", "0")])
    return [b""]
"""


@pytest.fixture
def plain(copy: Copy) -> Project:
    """A small app with three answers."""
    project = copy(None)
    project.write(
        "app.py",
        "def app(environ, start_response):\n"
        "    status = {'/': '200 OK', '/away': '302 Found'}.get(environ['PATH_INFO'], '500 Oh no')\n"
        "    start_response(status, [('Content-Length', '3')])\n"
        "    return [b'oh\\n']\n",
    )
    return project


def bench(project: Project, *arguments: str, code: int = 0) -> Done:
    place = project.place / "tmp"
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    done = project.run("bench", *arguments, code=code, env={"TMPDIR": str(place)})
    assert not list(place.iterdir())
    project.nothing_is_left()
    assert not project.state.exists()
    return done


@needs_wrk
def test_a_table_and_a_picture_of_two_app_servers_beside_a_stack_that_is_left_alone(plain: Project) -> None:
    plain.up()
    pid = plain.pid("app")
    done = plain.run("bench", *QUICK, "-s", "bundled", "-s", "uwsgi", "--svg", "bench.svg")
    assert plain.pid("app") == pid
    assert plain.get("/").status == 200
    lines = done.out.splitlines()
    assert max(map(len, lines)) == 80
    rows = [line.split() for line in lines if line.startswith(("bundled ", "uwsgi ")) and "(" not in line]
    assert [row[0] for row in rows] == ["bundled", "uwsgi"]
    assert all(float(figure) > 0 for row in rows for figure in row[1:])
    rounds = [line for line in done.err.splitlines() if line.startswith("round ")]
    assert rounds == ["round 1 of 1: bundled ...", "round 1 of 1: uwsgi ..."]
    assert "warning: fewer than 3 rounds" in done.err
    texts = [each.text for each in ET.parse(plain.directory / "bench.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"bundled", "uwsgi", "/"} <= {*texts}


@needs_wrk
def test_json_has_every_path_under_every_app_server(plain: Project) -> None:
    two = ("-s", "bundled", "-s", "gunicorn-sync", "--protocol", "http", "--path", "/", "--path", "/?a=b")
    told = bench(plain, *QUICK, *two, "--json", "--bare").json
    assert [(each["name"], each["protocol"]) for each in told["servers"]] == [
        ("bundled", "http"),
        ("gunicorn-sync", "http"),
    ]
    asked = [(each["path"], each["server"]) for each in told["results"]]
    assert asked == [(path, server) for path in ("/", "/?a=b") for server in ("bundled", "gunicorn-sync")]
    for each in told["results"]:
        assert each["requests"] > 0
        assert each["both_each"]["median"] > each["server_each"]["median"] > 0
        assert each["memory"]["median"] > 1024**2
    assert told["workers"] == 1
    assert told["bare"]


@needs_wrk
@pytest.mark.parametrize(("path", "status"), [("/none", 500), ("/away", 302)])
def test_an_answer_that_is_not_2xx_is_no_figure(plain: Project, path: str, status: int) -> None:
    done = bench(plain, *QUICK, "-s", "bundled", "--path", path, code=4)
    assert f"stackctl: bundled: GET {path} was answered {status}, not 2xx" in done.err
    assert done.out == ""


@needs_wrk
def test_answers_that_go_bad_under_load_are_no_figure(plain: Project) -> None:
    plain.write("app.py", TIRES)
    done = bench(plain, *QUICK, "-s", "bundled", code=4)
    assert "stackctl: bundled: GET /: of " in done.err
    assert " answered 400 or more" in done.err
    assert done.out == ""


@needs_wrk
def test_interrupted_it_leaves_nothing(plain: Project) -> None:
    running = plain.start("bench", "--seconds", "60", "-s", "bundled")
    running.says("round 1 of 3: bundled ...")
    running.process.send_signal(signal.SIGTERM)
    assert running.wait() == 130
    plain.nothing_is_left()


def test_without_wrk_it_says_how_to_get_it(plain: Project) -> None:
    nowhere = plain.place / "nowhere"
    nowhere.mkdir()
    done = plain.run("bench", *QUICK, code=5, env={"PATH": str(nowhere)})
    assert "wrk, which makes the load, is not on this machine" in done.err
    assert "apt install wrk" in done.err


@needs_wrk
def test_an_app_server_that_nobody_knows_is_a_mistake(plain: Project) -> None:
    done = bench(plain, *QUICK, "-s", "hypercorn", code=2)
    assert "--server hypercorn: there is no app server of that name to measure" in done.err
    assert "gunicorn-gthread, gunicorn-sync, granian, waitress" in done.err


@pytest.mark.parametrize("engine", ["granian", "waitress"])
def test_a_peer_is_not_served_with(plain: Project, engine: str) -> None:
    done = plain.run("check", "--server", engine, code=3)
    assert f"[server] engine = '{engine}': stackctl only measures it, in `stackctl bench`" in done.err
    assert "To serve with, there is: bundled, uwsgi, gunicorn." in done.err


@needs_wrk
def test_peers_that_are_installed_are_measured(plain: Project) -> None:
    peers = [each for each in ("granian", "waitress") if installed(each)]
    if not peers:
        pytest.skip("neither granian nor waitress is installed: pip install -e '.[bench]'")
    told = bench(plain, *QUICK, *(word for each in peers for word in ("-s", each)), "--json").json
    assert [each["server"] for each in told["results"]] == peers


def installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
