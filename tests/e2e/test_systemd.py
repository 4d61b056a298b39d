"""Under a service manager such as systemd: what it is told, and when; its sockets, which outlive us."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import time
from http.client import HTTPConnection

import psutil
import pytest

from .manager import environment, handed, listening
from .project import IN_THE_SERVER, WITHIN, Project, listens, until

pytestmark = pytest.mark.e2e

WATCHDOG = 0.4  # seconds that the manager waits for a sign of life


def test_manager_is_told_of_start_reloads_and_end_as_they_happen(steered: Project) -> None:
    with listening() as manager:
        started = time.monotonic_ns() // 1000
        stack = steered.start("up", "--listen", steered.address, env=environment(manager))
        ready = manager.until("READY")
        assert steered.get("/").text == "1", "ready means answered"
        assert ready.words["MAINPID"] == str(stack.process.pid)
        assert ready.status == f"serves {steered.url}: app generation 1, nginx generation 1"
        assert [each.status for each in manager.heard[:-1]][:1] == ["starting app, nginx"]
        assert "trying every hop" in [each.status for each in manager.heard]

        steered.write("version.txt", "2")
        steered.run("reload")
        reloading, ready = manager.until("RELOADING"), manager.until("READY")
        assert started < int(reloading.words["MONOTONIC_USEC"]) < time.monotonic_ns() // 1000
        assert ready.status == f"serves {steered.url}: app generation 2, nginx generation 1"

        steered.write("app.py", IN_THE_SERVER.format("os._exit(3)"))
        steered.run("reload", code=1)
        manager.until("RELOADING")
        ready = manager.until("READY")
        assert ready.status.startswith(f"serves {steered.url}: app generation 2, nginx generation 1; ")
        assert "the last reload was refused: app did not start" in ready.status
        assert steered.get("/").text == "2"

        stack.process.terminate()
        assert manager.until("STOPPING").status == "finishing what is in hand"
        assert stack.wait() == 0
        assert manager.kinds == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
        assert {each.pid for each in manager.heard} == {stack.process.pid}, "NotifyAccess=main believes nobody else"


def test_manager_is_told_of_a_crash_and_its_repair(steered: Project) -> None:
    with listening(abstract=True) as manager:
        steered.start("up", "--listen", steered.address, env=environment(manager))
        manager.until("READY")
        os.kill(steered.pid("app"), signal.SIGKILL)
        assert manager.until("", "app is down (SIGKILL").status.startswith(f"fails at {steered.url}")
        assert manager.until("", "app generation 2").status.startswith(f"serves {steered.url}")


def test_words_of_the_manager_reach_no_service(steered: Project) -> None:
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    seen = steered.event("seen")
    look = (
        f"import json, os\nwith open({str(seen)!r}, 'a') as seen:\n    print(json.dumps(list(os.environ)), file=seen)\n"
    )
    steered.write("app.py", look + (steered.directory / "app.py").read_text())
    with listening() as manager, socket.create_server(("127.0.0.1", steered.port)) as held:
        env, before = environment(manager, WATCHDOG), handed(held)
        steered.start("up", "--listen", steered.address, env=env, before=before, pass_fds=(held.fileno(),))
        manager.until("READY")
        assert [steered.get(f"/environ/{each}").text for each in names] == ["(not set)"] * len(names)
        whoever = [set(json.loads(line)) for line in seen.read_text().splitlines()]
        assert len(whoever) > 1
        assert not any(set(names) & each for each in whoever), "not who looks for the app, either"


def test_manager_is_told_why_a_start_failed(steered: Project) -> None:
    with listening() as manager:
        steered.write("app.py", IN_THE_SERVER.format("os._exit(3)"))
        stack = steered.start("up", "--listen", steered.address, env=environment(manager))
        assert "app did not start" in manager.until("STOPPING").status
        assert stack.wait() == 1
        assert manager.kinds == ["STOPPING"]


def test_manager_is_told_the_error_of_a_start_that_never_began(steered: Project) -> None:
    with listening() as manager, socket.create_server(("127.0.0.1", steered.port)):
        stack = steered.start("up", "--listen", steered.address, env=environment(manager))
        told = manager.next()
        assert told.status.startswith(f"cannot listen on {steered.address}")
        assert os.strerror(int(told.words["ERRNO"])) == "Address already in use"
        assert stack.wait() == 1
        assert manager.kinds == []


def test_signs_of_life_end_with_the_supervisors_loop(steered: Project) -> None:
    with listening() as manager:
        stack = steered.start("up", "--listen", steered.address, env=environment(manager, WATCHDOG))
        manager.until("READY")
        for _ in range(3):
            manager.until("WATCHDOG")
        supervisor = psutil.Process(stack.process.pid)
        supervisor.suspend()
        until(lambda: supervisor.status() == psutil.STATUS_STOPPED, "the supervisor hangs")
        manager.hears_nothing_within(WATCHDOG)
        assert steered.get("/").text == "1", "what it supervises does not need it to serve"
        supervisor.resume()
        manager.until("WATCHDOG")


def test_detached_stack_tells_nobody(steered: Project) -> None:
    with listening() as manager:
        done = steered.start("up", "-d", "--listen", steered.address, env=environment(manager))
        assert done.wait() == 0
        steered.run("down")
        manager.hears_nothing_within(0)
        assert manager.heard == []


# Sockets that somebody else holds.


def test_requests_made_while_stackctl_is_down_are_answered_by_the_next(steered: Project) -> None:
    with socket.create_server(("127.0.0.1", steered.port)) as held, listening() as manager:
        env, before = environment(manager), handed(held)

        def start() -> int:
            stack = steered.start("up", "--listen", steered.address, env=env, before=before, pass_fds=(held.fileno(),))
            manager.until("READY")
            return stack.process.pid

        first = start()
        assert steered.get("/").text == "1"
        steered.run("reload")
        psutil.Process(first).terminate()
        steered.nothing_is_left()
        assert listens(steered.port), "the socket is still there"
        waiting = [HTTPConnection("127.0.0.1", steered.port, timeout=WITHIN) for _ in range(3)]
        for each in waiting:
            each.request("GET", "/")
        steered.write("version.txt", "2")
        start()
        assert [each.getresponse().read() for each in waiting] == [b"2"] * 3
        for each in waiting:
            each.close()


def test_app_server_that_faces_the_clients_takes_the_socket_too(steered: Project) -> None:
    with socket.create_server(("127.0.0.1", steered.port)) as held:
        arguments = ("up", "-d", "--no-nginx", "--listen", steered.address)
        for _ in range(2):
            done = steered.start(*arguments, before=handed(held), pass_fds=(held.fileno(),))
            assert done.wait() == 0, done.err
            assert steered.get("/").text == "1"
            steered.run("down")


def test_listener_that_was_not_handed_over_is_bound(steered: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        other = f"127.0.0.1:{held.getsockname()[1]}"
        arguments = ("up", "-d", "--listen", steered.address, "--listen", other)
        done = steered.start(*arguments, before=handed(held), pass_fds=(held.fileno(),))
        assert done.wait() == 0, done.err
        assert steered.get("/").text == "1"
        steered.port = held.getsockname()[1]
        assert steered.get("/").text == "1"


def test_socket_for_which_there_is_no_site_is_named(steered: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        done = steered.start("up", "--listen", steered.address, before=handed(held), pass_fds=(held.fileno(),))
        assert done.wait() == 3
        given = f"127.0.0.1:{held.getsockname()[1]}"
        assert f"the socket unit passes {given}, but the stack listens on {steered.address}" in done.err
        assert "ListenStream=" in done.err
    steered.nothing_is_left()


def test_sockets_meant_for_another_process_are_left_alone(steered: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        env = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
        done = steered.start("up", "-d", "--listen", steered.address, env=env)
        assert done.wait() == 0, done.err


# The unit.


def test_unit_starts_what_it_was_printed_for(steered: Project) -> None:
    printed = steered.run("systemd-unit", "--listen", steered.address).out
    start = next(line.partition("=")[2] for line in printed.splitlines() if line.startswith("ExecStart="))
    with listening() as manager:
        usual, steered.command = steered.command, tuple(shlex.split(start))
        stack = steered.start(env=environment(manager))
        steered.command = usual
        manager.until("READY")
        assert steered.get("/").text == "1"
        assert steered.run("systemd-unit").out == printed, "a stack that runs prints the unit that starts it"
        stack.process.terminate()
        assert stack.wait() == 0
