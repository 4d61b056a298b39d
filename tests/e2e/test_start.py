"""The first start: what keeps it from happening is said, and nothing is left of the attempt."""

from __future__ import annotations

import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .fault import THOROUGH, fault
from .project import IN_THE_SERVER, Done, Project, until

pytestmark = pytest.mark.e2e


def refused(project: Project, *arguments: str, code: int) -> Done:
    """A start that fails, and leaves nothing."""
    done = project.up(*arguments, code=code)
    assert done.out == ""
    project.nothing_is_left()
    return done


def test_app_that_raises_is_shown_with_its_traceback(steered: Project) -> None:
    steered.write("app.py", "1 / 0\n")
    done = refused(steered, code=3)
    assert "ZeroDivisionError: division by zero" in done.err
    assert f'File "{steered.directory / "app.py"}", line 1' in done.err
    assert "stack/" not in done.err


def test_app_that_raises_in_the_server_only_is_shown_with_its_traceback(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format("1 / 0"))
    done = refused(steered, code=1)
    assert "app did not start" in done.err
    assert "ZeroDivisionError: division by zero" in done.err
    assert done.err.count("ZeroDivisionError") == 1


def test_worker_that_ends_itself_ends_the_start(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format("os._exit(3)"))
    done = refused(steered, code=1)
    assert "app did not start" in done.err
    assert "exited with code 3" in done.err


def test_app_whose_health_page_fails_is_refused(steered: Project) -> None:
    done = refused(steered, "--set", "app.health=/environ/X", "--set", "app.target=app:nothing", code=3)
    assert "nothing" in done.err
    steered.write("app.py", "def app(environ, start_response):\n    raise LookupError('no database')\n")
    done = refused(steered, code=1)
    assert "answered 500 to GET /" in done.err
    assert "LookupError: no database" in done.err


def test_taken_port_is_named_with_its_holder(steered: Project) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", steered.port))
        holder.listen()
        done = refused(steered, code=1)
    assert f"cannot listen on {steered.address}: pid {os.getpid()} has it" in done.err
    assert Path(sys.argv[0]).name in done.err or "python" in done.err
    assert "--listen 127.0.0.1:" in done.err
    steered.up()


def test_unknown_key_is_named_with_the_one_meant(steered: Project) -> None:
    file = steered.write("stack.toml", "[server]\nwokers = 3\n")
    done = steered.up(code=3)
    assert "unknown key server.wokers" in done.err
    assert "Did you mean workers?" in done.err
    file.unlink()
    steered.nothing_is_left()


def test_missing_nginx_is_a_missing_program(steered: Project) -> None:
    done = refused(steered, "--nginx", "/nonexistent", code=5)
    assert "/nonexistent" in done.err


def test_words_of_an_nginx_that_refuses_its_files_are_shown(steered: Project) -> None:
    wrapper = steered.wrapped_nginx("""exec {nginx} "$@" -g 'no_such_directive on;'""")
    done = refused(steered, "--nginx", wrapper, code=3)
    assert "nginx -t refuses the rendered configuration" in done.err
    assert 'unknown directive "no_such_directive"' in done.err


def test_nginx_that_cannot_start_is_told_with_its_words(steered: Project) -> None:
    wrapper = steered.wrapped_nginx('case "$*" in *daemon*) echo no luck today; exit 1; esac; exec {nginx} "$@"')
    done = refused(steered, "--nginx", wrapper, code=1)
    assert "nginx did not start" in done.err
    assert "no luck today" in done.err


@fault("two starts at once")
def test_of_many_starts_at_once_one_wins_and_the_others_name_it(steered: Project) -> str:
    number = 20 if THOROUGH else 6
    starts = [steered.start("up", "-d", "--listen", steered.address) for _ in range(number)]
    codes = [each.wait() for each in starts]
    assert sorted(codes) == [0] + [1] * (number - 1), [each.err for each in starts]
    winner = starts[codes.index(0)]
    assert winner.out == f"{steered.url}\n"
    family = {winner.process.pid, steered.status()["pid"]}
    for each in starts:
        if each is not winner:
            assert "this project's stack is running already: pid" in each.err
            named = int(each.err.partition("already: pid ")[2].partition(",")[0])
            assert named in family
    assert steered.get("/").text == "1"
    return f"1 of {number} wins, {number - 1} name its pid"


def test_commands_that_look_meanwhile_do_not_disturb_a_start(steered: Project) -> None:
    for _ in range(3):
        with ThreadPoolExecutor() as lookers:
            looks = [lookers.submit(steered.run, "status", "--json", code=None) for _ in range(12)]
            steered.up()
        assert {each.result().code for each in looks} <= {0, 4}
        assert steered.get("/").text == "1"
        assert steered.status()["url"] == steered.url
        steered.run("down")


def test_start_after_a_failed_one_serves(steered: Project) -> None:
    works = (steered.directory / "app.py").read_text()
    steered.write("app.py", IN_THE_SERVER.format("1 / 0"))
    refused(steered, code=1)
    steered.write("app.py", works)
    steered.up()
    assert steered.get("/").text == "1"


def test_interrupted_start_leaves_nothing(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format("open(os.environ['BEGUN'], 'w').close(); time.sleep(600)"))
    begun = steered.event("begun")
    start = steered.start("up", "-d", "--listen", steered.address, "--set", f"app.env.BEGUN={begun}")
    until(begun.exists, "the app is being loaded")
    start.process.terminate()
    start.process.wait()
    steered.nothing_is_left()
