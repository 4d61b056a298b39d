"""Each app server, in each protocol that it speaks, behind nginx: the app is told the same, and gets the same."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import psutil
import pytest

from .client import PATIENCE
from .conftest import Copy
from .installed import python_for_everybody
from .project import APPS, Project, lives, until

pytestmark = pytest.mark.e2e

ROOT = os.geteuid() == 0
WAYS = {
    "bundled-uwsgi": ("bundled", "uwsgi"),
    "bundled-http": ("bundled", "http"),
    "uwsgi-uwsgi": ("uwsgi", "uwsgi"),
    "uwsgi-http": ("uwsgi", "http"),
    "gunicorn-http": ("gunicorn", "http"),
}
# What somebody may have in the shell from which the stack is started, and what would change what it does.
FOREIGN = {
    "UWSGI_PROCESSES": "7",
    "UWSGI_HTTP_SOCKET": "127.0.0.1:1",
    "UWSGI_DISABLE_LOGGING": "no-such-thing",
    "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 --workers 7",
}
TERRIBLE = 'it\'s "a" %d, $HOME; 100%% & é {y} \\z'
LARGE = 20 * 1024**2


class Way(Project):
    """A stack of one way, which several tests ask."""

    engine: str
    protocol: str


@pytest.fixture(
    scope="module", params=[pytest.param(each, marks=pytest.mark.xdist_group(f"engine-{each}")) for each in WAYS]
)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """A stack in a directory of a terrible name, and too deep for a socket."""
    project = Way(APPS / "telling", TERRIBLE, under="/".join(["deep" * 10] * 3))
    try:
        project.engine, project.protocol = WAYS[request.param]
        project.write("secrets.env", 'SECRET="a b $c"\n')
        project.write(
            "stack.toml",
            "[stack]\nname = 'terrible'\n[app]\nenv_file = 'secrets.env'\nenv = {PLAIN = 'p'}\n[server]\nworkers = 2\n",
        )
        project.up(f"--server={project.engine}", f"--set=server.protocol={project.protocol}", env=FOREIGN)
        yield project
    finally:
        project.end()


def test_the_app_is_told_what_the_client_asked(way: Way) -> None:
    facts = way.get("/facts/a%2Fb%20c/%C3%A9?q=1%202&x=%2F", Host=f"shop.example.org:{way.port}").json
    assert facts["rest"] == "a/b c/é"
    assert facts["PATH_INFO"] == "/facts/a/b c/é".encode().decode("latin-1")
    assert facts["QUERY_STRING"] == "q=1%202&x=%2F"
    assert facts["SCRIPT_NAME"] == ""
    assert facts["REQUEST_METHOD"] == "GET"
    assert facts["HTTP_HOST"] == f"shop.example.org:{way.port}"
    assert facts["SERVER_NAME"] == "shop.example.org"
    assert facts["SERVER_PORT"] == str(way.port)
    assert facts["SERVER_PROTOCOL"] in ("HTTP/1.1", "HTTP/1.0")
    assert facts["wsgi.url_scheme"] == "http"
    assert facts["REMOTE_ADDR"] == facts["remote"] == "127.0.0.1"
    assert facts.get("RAW_URI", facts.get("REQUEST_URI")) == "/facts/a%2Fb%20c/%C3%A9?q=1%202&x=%2F"


def test_what_a_client_claims_of_itself_is_not_believed(way: Way) -> None:
    claims = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Port": "6666",
        "X-Forwarded-Host": "evil.example.org",
        "X-Forwarded-Ssl": "on",
        "X-Forwarded-Protocol": "ssl",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-Ip": "6.6.6.6",
        "Forwarded": "for=6.6.6.6;proto=https",
        "Script-Name": "/facts",
        "SCRIPT_NAME": "/facts",
        "Script_Name": "/facts",
        "Path-Info": "/evil",
        "Remote-Addr": "6.6.6.6",
        "Remote-User": "root",
        "Proxy": "http://evil.example.org",
        "X-Sendfile": "/etc/passwd",
        "Uwsgi-File": "/etc/passwd",
        "UWSGI_FILE": "/etc/passwd",
        "Https": "on",
    }
    plain, facts = way.get("/facts/x").json, way.get("/facts/x", **claims).json
    ours = {name for name in facts if not name.startswith("HTTP_")} - {"REMOTE_PORT", "REQUEST_START"}
    assert {name: facts[name] for name in ours} == {name: plain.get(name) for name in ours}
    assert "HTTP_PROXY" not in facts
    assert facts["SCRIPT_NAME"] == ""
    for name in ("REMOTE_USER", "HTTPS", "UWSGI_FILE"):
        assert name not in facts
    if way.protocol == "http":
        assert facts["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
        assert facts["HTTP_X_FORWARDED_PROTO"] == "http"


def test_a_request_of_http_1_0_has_a_host(way: Way) -> None:
    with HTTPClient(way) as connection:
        connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
        connection.putrequest("GET", "/facts", skip_host=True)
        connection.endheaders()
        facts = json.loads(connection.getresponse().read())
    assert facts["SERVER_NAME"]
    assert facts["wsgi.url_scheme"] == "http"


class HTTPClient:
    def __init__(self, project: Project) -> None:
        self.connection = HTTPConnection("127.0.0.1", project.port, timeout=PATIENCE)

    def __enter__(self) -> HTTPConnection:
        return self.connection

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def test_large_uploads_arrive_whole_and_need_not_be_read(way: Way) -> None:
    body = os.urandom(LARGE)
    assert way.post("/read", body).text == hashlib.sha256(body).hexdigest()
    for _ in range(3):
        answer = way.post("/unread", body)
        assert (answer.status, answer.text) == (200, "not looked at")


def test_a_chunked_body_arrives(way: Way) -> None:
    with HTTPClient(way) as connection:
        connection.request("POST", "/read", iter([b"one, ", b"two, " * 20000, b"three"]), encode_chunked=True)
        assert (
            connection.getresponse().read().decode()
            == hashlib.sha256(b"one, " + b"two, " * 20000 + b"three").hexdigest()
        )


def test_what_is_yielded_arrives_before_the_next_is(way: Way) -> None:
    go_on = way.event("go-on")
    go_on.unlink(missing_ok=True)
    with HTTPClient(way) as connection:
        connection.request("GET", f"/stream?for={go_on}")
        response = connection.getresponse()
        assert response.readline() == b"first\n"
        go_on.touch()
        assert response.read() == b"last\n"


def test_a_redirect_leads_back_to_where_the_client_is(way: Way) -> None:
    assert way.get("/away").headers["Location"] == f"http://{way.address}/facts"
    assert way.get("/away", Host="shop.example.org").headers["Location"] == "http://shop.example.org/facts"


def test_the_app_has_its_secrets_and_nothing_that_was_meant_for_its_server(way: Way) -> None:
    found = way.get("/variables").json
    assert (found["SECRET"], found["PLAIN"]) == ("a b $c", "p")
    assert not [name for name in FOREIGN if name in found]
    assert len(way.workers("app")) == 2
    assert "a b $c" not in "".join(psutil.Process(way.pid("app")).cmdline())


def test_the_app_runs_as_its_user_where_it_lives(way: Way) -> None:
    who = way.get("/who").json
    assert who["cwd"] == str(way.directory)
    assert who["file"] == str(way.directory / "app.py")
    if ROOT and python_for_everybody() == os.path.realpath(sys.executable):  # else nobody but root can run it
        assert who["uid"] == pwd.getpwnam("www-data").pw_uid
        assert 0 not in who["groups"]


def test_only_the_web_server_may_connect(way: Way) -> None:
    directory = way.runtime / "sockets"
    assert stat.S_IMODE(directory.stat().st_mode) & 0o007 == 0
    (generation,) = directory.glob("app.g*.sock")
    assert stat.S_IMODE(generation.stat().st_mode) == 0o600
    for private in (*directory.glob("*.control"), *directory.glob("*.tally")):
        assert stat.S_IMODE(private.stat().st_mode) & 0o077 == 0


def test_status_tells_what_the_workers_do(way: Way) -> None:
    def told() -> list[dict[str, Any]]:
        (app,) = (each for each in way.run("status", "--json").json["services"] if each["name"] == "app")
        found: list[dict[str, Any]] = app["generations"][0]["workers"]
        return found

    def requests() -> int:
        return sum(each["requests"] for each in told())

    before = requests()
    for _ in range(5):
        assert way.get("/").text == "telling"
    until(lambda: requests() >= before + 5, "its requests are told")
    assert {each["pid"] for each in told()} == way.workers("app")
    assert all(each["state"] == "ready" and each["rss"] > 0 for each in told())
    until(lambda: any(each["requests_per_second"] > 0 for each in told()), "the rate is told")
    assert "2 workers, " in way.run("status").out


def test_a_reload_leaves_one_generation_and_its_files(way: Way) -> None:
    way.run("reload")
    until(lambda: len(way.service("app")["generations"]) == 1, "the old one is gone")
    (generation,) = way.service("app")["generations"]
    names = {each.name for each in (way.runtime / "sockets").iterdir()}
    number = generation["number"]
    assert names - {f"app.g{number}.control", f"app.g{number}.tally"} == {
        f"app.{way.protocol}.sock",
        f"app.g{number}.sock",
    }
    assert "kills" not in way.log()


STUCK = """
import os

def app(environ, start_response):
    if environ["PATH_INFO"] == "/loop":
        loop()
    if environ["PATH_INFO"] == "/raise":
        raise MemoryError("meant")
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

def loop():
    while True:
        pass
"""


@pytest.mark.parametrize("engine", ["uwsgi", "gunicorn"])
def test_request_stuck_in_a_worker_that_leaves_for_lack_of_memory_is_shown_and_ended(
    steered: Project, engine: str
) -> None:
    steered.write("app.py", STUCK)
    steered.up("--server", engine, "--workers", "1", "--set=server.threads=2", "--set=server.timeout=1")
    before = steered.get("/").text
    assert steered.get("/raise").status == 500
    assert steered.get("/loop").status in (502, 504)  # asked before the worker looks, and leaves
    until(lambda: "in loop" in steered.log(), "its stack is shown")
    until(lambda: serves_anew(steered, before), "another serves")


def serves_anew(project: Project, before: str) -> bool:
    """Whether a worker other than that of this id serves."""
    answer = project.get("/")
    return answer.status == 200 and answer.text != before


NO_THREADS = """
import faulthandler, os, time
from urllib.parse import unquote

def app(environ, start_response):
    if environ["QUERY_STRING"]:
        faulthandler.dump_traceback_later = no_thread
        while not os.path.exists(unquote(environ["QUERY_STRING"])):
            time.sleep(0.01)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

def no_thread(*_, **__):
    raise RuntimeError("unable to start watchdog thread")
"""


@pytest.mark.parametrize("engine", ["uwsgi", "gunicorn"])
def test_worker_whose_requests_nobody_can_watch_any_more_is_replaced(steered: Project, engine: str) -> None:
    """As where there is no memory for one more thread."""
    steered.write("app.py", NO_THREADS)
    go_on = steered.event("go-on")
    steered.up("--server", engine, "--workers", "1")
    before = steered.get("/").text
    with ThreadPoolExecutor(1) as visitor:
        answer = visitor.submit(steered.get, f"/?{go_on}")
        until(lambda: "out of memory or threads (RuntimeError('unable" in steered.log(), "it is said")
        go_on.touch()
        assert answer.result(PATIENCE).text == before, "what it has in hand ends"
    until(lambda: serves_anew(steered, before), "another serves")


WAITS_AS_IT_LOADS = """
import os, pathlib, time
here = pathlib.Path(__file__).parent
if (here / "held").exists():
    (here / "loading").touch()
    while not (here / "go").exists():
        time.sleep(0.01)
(here / f"{os.getpid()}.loaded").touch()

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("engine", ["bundled", "uwsgi"])
def test_worker_that_loads_the_app_as_it_is_to_stop_holds_nobody_up(copy: Copy, engine: str) -> None:
    """uWSGI's master tells its workers once that they shall end, and one that still loads the app misses it."""
    project = copy(None)
    project.write("app.py", WAITS_AS_IT_LOADS)
    project.directory.chmod(0o777)
    project.up("--server", engine, "--workers", "2", "--set=server.timeout=15", "--set=server.stop_within=25")
    workers = project.workers("app")
    until(lambda: all((project.directory / f"{each}.loaded").exists() for each in workers), "both have loaded the app")
    (project.directory / "held").touch()
    killed, other = map(psutil.Process, workers)
    killed.kill()
    until((project.directory / "loading").exists, "the next worker loads the app")
    down = project.start("down")
    until(lambda: not lives(other), "the other has been told to stop")
    (project.directory / "go").touch()
    assert down.wait() == 0
    assert "kills" not in project.log()
