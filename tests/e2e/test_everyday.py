"""What one does between two reloads: check, run a command, migrate."""

from __future__ import annotations

import os
import socket

import pytest

from .project import Project

pytestmark = pytest.mark.e2e


def test_check_starts_nothing_and_accepts_what_up_would(steered: Project) -> None:
    assert "capacity" in steered.run("check", "--listen", steered.address).err
    assert steered.processes() == []
    assert not steered.runtime.exists()


def test_check_knows_the_port_of_the_running_stack_and_warns_of_a_stranger_s(steered: Project) -> None:
    steered.up()
    assert "cannot listen" not in steered.run("check", "--listen", steered.address).err
    steered.run("down")
    with socket.create_server(("127.0.0.1", steered.port)):
        done = steered.run("check", "--listen", steered.address)
    assert f"warning: cannot listen on {steered.address}: pid {os.getpid()} has it" in done.err
    assert "A free port: --listen 127.0.0.1:" in done.err


def test_check_refuses_what_up_would_refuse(steered: Project) -> None:
    steered.write("app.py", "import there_is_no_such_module\n")
    assert "there_is_no_such_module" in steered.run("check", code=3).err
    assert "workers" in steered.run("check", "--workers", "0", code=3).err
    assert "nginx" in steered.run("check", "--nginx", "/nowhere/nginx", code=5).err


def test_command_runs_in_the_app_s_world(steered: Project) -> None:
    steered.write("secrets.env", "TOKEN=hidden\n")
    steered.write("stack.toml", '[app]\nenv_file = "secrets.env"\nenv = { STAGE = "two" }\n')
    look = "import os, app; print(os.getcwd(), os.environ['TOKEN'], os.environ['STAGE'], app.VERSION)"
    assert steered.run("run", "python", "-c", look).out == f"{steered.directory} hidden two 1\n"


def test_command_s_exit_code_and_options_are_its_own(steered: Project) -> None:
    assert steered.run("run", "sh", "-c", "exit 7", code=7).out == ""
    assert "usage: " in steered.run("run", "python", "--help").out


def test_command_that_is_not_there_is_5(steered: Project) -> None:
    assert "no-such-command cannot be run" in steered.run("run", "no-such-command", code=5).err


def test_migration_runs_before_the_new_code(steered: Project) -> None:
    steered.write("stack.toml", "[app]\nbefore_reload = \"sh -c 'cat version.txt >> migrated.txt'\"\n")
    steered.directory.chmod(0o777)  # root's app is another user's
    steered.up()
    assert not (steered.directory / "migrated.txt").exists()
    steered.write("version.txt", "2")
    assert "ran sh -c" in steered.run("reload").err
    assert (steered.directory / "migrated.txt").read_text() == "2"
    assert steered.get("/").text == "2"


def test_migration_that_fails_keeps_the_old_code(steered: Project) -> None:
    steered.write("stack.toml", "[app]\nbefore_reload = \"sh -c 'echo no such table; exit 1'\"\n")
    steered.up()
    before = steered.rendered()
    steered.write("version.txt", "2")
    err = steered.run("reload", code=1).err
    assert "nothing was reloaded" in err
    assert "no such table" in err
    assert "stackctl run sh -c" in err
    assert steered.get("/").text == "1"
    assert steered.rendered() == before
