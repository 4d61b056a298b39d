"""A reload loses no request, whether the new code works or not."""

from __future__ import annotations

import socket

import psutil
import pytest

from .client import PATIENCE, Load
from .fault import fault
from .project import IN_THE_SERVER, Project, lives, until

pytestmark = pytest.mark.e2e

LARGE = 32 * 1024**2  # bytes: more than the kernel's buffers on the way hold


@pytest.mark.parametrize(
    ("engine", "protocol", "times"),
    [
        ("bundled", "http", 20),
        ("bundled", "uwsgi", 3),
        ("bundled", "fastcgi", 3),
        ("bundled", "scgi", 3),
        ("uwsgi", "uwsgi", 3),  # each of these more often in `make faults` and `make soak`
        ("uwsgi", "http", 3),
        ("gunicorn", "http", 3),
    ],
)
def test_reloads_under_load_lose_no_request(steered: Project, engine: str, protocol: str, times: int) -> None:
    steered.up("--set", f"server.engine={engine}", "--set", f"server.protocol={protocol}")
    nginx = steered.pid("nginx")
    with Load(steered.port) as load:
        for number in range(2, times + 2):
            asked = load.good
            steered.write("version.txt", str(number))
            assert steered.run("reload").err.endswith(f"app: generation {number} serves\n")
            assert steered.get("/").text == str(number)
            until(lambda asked=asked: load.good > asked, "requests are answered")  # type: ignore[misc]
    assert load.failed == []
    assert load.good > 100
    assert steered.pid("nginx") == nginx
    assert steered.service("app")["restarts"] == 0
    sockets = steered.runtime / "sockets"
    until(lambda: len([*sockets.glob("app.g*.sock")]) == 1, "only the last is left")


def test_request_in_hand_is_finished_by_the_old_code(steered: Project) -> None:
    steered.up("--workers", "1")
    go_on, begun = steered.event("go-on"), steered.event("go-on.begun")
    visitor = steered.start_client(f"/wait?for={go_on}")
    until(begun.exists, "the request is in hand")
    old = steered.pid("app")
    steered.write("version.txt", "2")
    steered.run("reload")
    assert steered.get("/").text == "2"
    assert old in [each["pid"] for each in steered.service("app")["generations"]]
    go_on.touch()
    assert visitor() == "waited"
    until(lambda: len(steered.service("app")["generations"]) == 1, "the old generation is gone")


@pytest.mark.parametrize("engine", ["uwsgi", "gunicorn", "bundled"])
def test_large_answer_to_a_slow_client_is_finished_by_the_old_code(steered: Project, engine: str) -> None:
    steered.up("--set", f"server.engine={engine}", "--workers", "2", "--set", "server.threads=1")
    with socket.socket() as visitor:
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)  # else the kernel may hold all of it
        visitor.settimeout(PATIENCE)
        visitor.connect(("127.0.0.1", steered.port))
        visitor.sendall(f"GET /large?size={LARGE} HTTP/1.0\r\n\r\n".encode())
        received = bytearray(visitor.recv(1))  # bytes would be copied with every piece that comes
        steered.run("reload")
        old = steered.service("app")["generations"][0]
        assert (old["number"], old["state"]) == (1, "stopping"), "it waits for the client"
        while more := visitor.recv(65536):
            received += more
    assert len(received.partition(b"\r\n\r\n")[2]) == LARGE
    until(lambda: len(steered.service("app")["generations"]) == 1, "the old generation is gone")
    assert "kills" not in steered.log()


@pytest.mark.parametrize("engine", ["uwsgi", "gunicorn", "bundled"])
def test_answer_without_an_end_keeps_the_old_code_for_stop_within(steered: Project, engine: str) -> None:
    limits = ("--set", "server.timeout=1", "--set", "server.stop_within=7")
    steered.up("--set", f"server.engine={engine}", "--workers", "2", "--set", "server.threads=1", *limits)
    with socket.create_connection(("127.0.0.1", steered.port), PATIENCE) as visitor:
        visitor.sendall(b"GET /endless HTTP/1.0\r\n\r\n")
        assert visitor.recv(1)
        old = [psutil.Process(each) for each in (steered.pid("app"), *steered.workers("app"))]
        steered.run("reload")
        assert len(steered.service("app")["generations"]) == 2
        while visitor.recv(65536):
            pass
    until(lambda: len(steered.service("app")["generations"]) == 1, "the old generation is gone")
    until(lambda: not any(map(lives, old)), "and all its processes")


BROKEN = {
    "syntax": ("def broken(:\n", "SyntaxError"),
    "import": ("import there_is_no_such_module\n", "there_is_no_such_module"),
    "factory": ("def create_app():\n    raise LookupError('no database')\n", "no database"),
    "health": (
        "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get('/')\ndef index():\n    return str(1 / 0)\n",
        "ZeroDivisionError",
    ),
    "hang": ("import time\n\ntime.sleep(600)\n", "longer than 2 s"),
    "hang-in-the-server-only": (IN_THE_SERVER.format("time.sleep(600)"), "not ready within 2 s"),
    "exit-in-the-server-only": (IN_THE_SERVER.format("os._exit(3)"), "did not start"),
}


@pytest.mark.xdist_group("reloads to broken code")
@pytest.mark.parametrize("kind", BROKEN)
def test_reload_to_broken_code_changes_nothing(served: Project, kind: str) -> None:
    code, reason = BROKEN[kind]
    patience = ("--set", "server.start_within=2") if kind.startswith("hang") else ()
    works = (served.directory / "app.py").read_text()
    before, generation = served.rendered(), served.pid("app")
    with Load(served.port) as load:
        until(lambda: load.good > 10, "requests are answered")
        served.write("app.py", code)
        refused = served.run("reload", *patience, code=None)
        asked = load.good
        until(lambda: load.good > asked + 10, "requests are answered still")
        served.write("app.py", works)
    assert refused.code in (1, 3)
    assert reason in refused.err
    assert load.failed == []
    assert served.rendered() == before
    assert served.pid("app") == generation
    served.write("version.txt", f"repaired after {kind}")
    served.run("reload")
    assert served.get("/").text == f"repaired after {kind}"


@fault("broken configuration at a reload")
def test_reload_that_nginx_refuses_changes_nothing(steered: Project) -> str:
    wrapper = steered.wrapped_nginx('exec {nginx} "$@"')
    steered.up("--nginx", wrapper)
    before, works = steered.rendered(), (steered.directory / wrapper).read_text()
    steered.wrapped_nginx("""exec {nginx} "$@" -g 'no_such_directive on;'""")
    steered.write("stack.toml", "[site]\nmax_body = 1000\n")
    steered.write("version.txt", "2")
    refused = steered.run("reload", code=3)
    assert "nginx -t refuses" in refused.err
    assert 'unknown directive "no_such_directive"' in refused.err
    assert steered.rendered() == before
    assert steered.get("/").text == "1"
    steered.write(wrapper, works)
    steered.run("reload")
    assert steered.get("/").text == "2"
    until(lambda: steered.post("/echo", b"x" * 1001).status == 413, "nginx has taken up the change")
    return "exit code 3; files and processes as they were"


def test_two_reloads_at_once_both_succeed(steered: Project) -> None:
    steered.up()
    with Load(steered.port) as load:
        commands = [steered.start("reload") for _ in range(2)]
        assert [each.wait() for each in commands] == [0, 0], [each.err for each in commands]
    assert load.failed == []
    assert steered.get("/").text == "1"
