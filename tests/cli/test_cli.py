"""The command as a user runs it: exit codes, what goes to stdout and what to stderr, and how little --help needs."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from stack import __version__
from stack.cli import show
from stack.cli.commands import app
from stack.desired import Plan, Probe, Service
from stack.health.finding import of_result
from stack.hop import Result
from tests.e2e.warm import warm

WITHIN = 60.0  # seconds: a deadline for what should take milliseconds
HEAVY = ("pydantic", "jinja2", "flask", "psutil", "dotenv", "stack.config", "stack.render", "asyncio")
NGINX = "#!/bin/sh\necho 'nginx version: nginx/1.22.1' >&2\n"


@pytest.fixture
def project() -> Iterator[Path]:
    """A small app, and a program that says it is nginx: nothing here runs it."""
    directory = Path(tempfile.mkdtemp(prefix="shop-", dir="/tmp"))
    directory.chmod(0o755)
    (directory / "app.py").write_text("def app(environ, start_response): ...\n")
    (directory / "nginx").write_text(NGINX)
    (directory / "nginx").chmod(0o755)
    (directory / "stack.toml").write_text(
        '[programs]\nnginx = "nginx"\n[stack]\nname = "shop"\nruntime_dir = "run"\n'
        f'[app]\npython = "{sys.executable}"\n'
    )
    yield directory
    shutil.rmtree(directory)


def ran(where: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end: a fork of one that has imported everything, as most of what it costs is imports."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STACKCTL_")}
    environment = {**kept, "FORCE_COLOR": "1", "TERM": "xterm-256color", **environment}
    argv = ["-P", "-m", "stack", *words]
    code, *said = warm().run(argv, where, environment, WITHIN)
    out, err = (each.decode() for each in said)
    assert "\x1b" not in out + err, "colour in a pipe"
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(argv, code, out, err)


# What is said where.


def test_interruption_that_a_library_makes_its_own_error_of_is_one(project: Path) -> None:
    (project / "library").mkdir()
    (project / "library" / "pydantic.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
        "except KeyboardInterrupt:\n    raise RuntimeError('of pydantic') from None\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stack", "config"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "library")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_help_is_data_and_names_every_command(tmp_path: Path) -> None:
    done = ran(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("up", "down", "reload", "status", "logs", "nginx-conf", "config", "diff", "health", "init"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", ["up", "logs"])
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    done = ran(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--help" in done.stdout


def test_every_command_has_an_example() -> None:
    commands = vars(get_command(app))["commands"]
    assert len(commands) > 10
    for name, command in commands.items():
        assert f"Example: stackctl {name}" in command.help


def test_colour_is_for_terminals_that_want_it(project: Path) -> None:
    def shown(**environment: str) -> str:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", **environment}
        begun = warm().start(["-P", "-m", "stack", "health"], project, environment, (theirs, theirs))
        os.close(theirs)
        begun.wait(WITHIN)
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            return terminal.read(65536).decode()

    assert "\x1b[31mFAIL\x1b[0m" in shown(NO_COLOR="")
    plain = shown(NO_COLOR="1")
    assert "FAIL " in plain
    assert "\x1b" not in plain


def test_help_loads_nothing_heavy() -> None:
    script = f"import sys, stack.cli.commands; print([each for each in {HEAVY!r} if each in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=WITHIN, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [("config", ("jinja2", "flask", "psutil", "asyncio")), ("nginx-conf", ("flask", "psutil", "dotenv"))],
)
def test_commands_load_nothing_heavy_that_they_do_not_need(
    project: Path, command: str, unneeded: tuple[str, ...]
) -> None:
    script = (
        "import atexit, sys; from stack.__main__ import main\n"
        f"loaded = lambda: [each for each in {unneeded!r} if each in sys.modules]\n"
        "atexit.register(lambda: print(loaded(), file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, command],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=True,
    )
    assert (done.stdout != "", done.stderr) == (True, "[]\n")


def test_the_version_is_data(tmp_path: Path) -> None:
    done = ran(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"stackctl {__version__}\n", "")


def test_config_is_toml_on_stdout(project: Path) -> None:
    done = ran(
        project, "config", "--workers", "3", "--listen", "9000", "--listen", "[::1]:80", STACKCTL_SERVER_THREADS="7"
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = tomllib.loads(done.stdout)
    assert (found["server"]["workers"], found["server"]["threads"]) == (3, 7)
    assert found["site"]["listen"] == ["0.0.0.0:9000", "[::1]:80"]


def test_config_says_where_a_value_is_from(project: Path) -> None:
    done = ran(project, "config", "--origin", "--workers", "3", STACKCTL_SERVER_THREADS="7")
    origins = {line.partition(" = ")[0]: line.rpartition("  # ")[2] for line in done.stdout.splitlines()}
    assert origins["server.workers"] == "--workers"
    assert origins["server.threads"] == "environment STACKCTL_SERVER_THREADS"
    assert origins["stack.name"] == "stack.toml"
    assert origins["server.timeout"] == "default"


def test_config_is_json_if_wanted(project: Path) -> None:
    done = ran(project, "config", "--json", "--nginx", "nginx")
    found = json.loads(done.stdout)
    assert found["programs"]["nginx"] == str(project / "nginx")
    assert found["apps"]["app"]["server"]["engine"] == "bundled"


def test_the_project_may_be_named_or_found_from_below(project: Path) -> None:
    (project / "deep" / "er").mkdir(parents=True)
    here = ran(project, "config").stdout
    assert ran(project / "deep" / "er", "config").stdout == here
    assert ran(Path("/"), "-C", str(project), "config").stdout == here


def test_nginx_conf_is_the_site_on_stdout(project: Path) -> None:
    done = ran(project, "nginx-conf", "--listen", "8123", "--set", "site.server_names=a.org")
    assert (done.returncode, done.stderr) == (0, "")
    assert "    listen 8123;\n    server_name a.org;\n" in done.stdout
    assert "http {" not in done.stdout
    assert not (project / ".stackctl").exists()


def test_server_conf_is_the_command_on_stdout(project: Path) -> None:
    done = ran(project, "server-conf", "--set", "app.env.STAGE=hidden", "-w", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "stackctl_entry:application" in done.stdout
    assert "--workers 3" in done.stdout
    assert "#   STAGE (from [app] env)" in done.stdout
    assert "hidden" not in done.stdout


def test_diff_shows_files_and_tells_of_them(project: Path) -> None:
    done = ran(project, "diff", "--exit-code")
    assert done.returncode == 1
    assert "+++ " in done.stdout
    assert "file " in done.stderr
    assert "file " not in [line[:5] for line in done.stdout.splitlines()]


def test_init_talks_and_has_no_data(project: Path) -> None:
    (project / "stack.toml").unlink()
    done = ran(project, "init")
    assert (done.returncode, done.stdout) == (0, "")
    assert "next: stackctl up" in done.stderr
    assert ran(project, "init").returncode == 1


# Exit codes.


@pytest.mark.parametrize(
    "words",
    [
        ["upp"],
        ["up", "--wrokers", "3"],
        ["config", "--workers", "many"],
        ["config", "--set", "x"],
        ["logs", "-n", "-1"],
        ["-C", "/nowhere", "config"],
    ],
)
def test_a_usage_error_is_2_and_talk(project: Path, words: list[str]) -> None:
    done = ran(project, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_a_configuration_error_is_3_and_talk(project: Path) -> None:
    (project / "stack.toml").write_text("[server]\nwrokers = 3\n")
    done = ran(project, "config")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (f"stackctl: {project}/stack.toml: unknown key server.wrokers\n  -> Did you mean workers?\n")
    assert ran(project, "config", STACKCTL_ODD="1").returncode == 3


def test_what_does_not_run_is_unhealthy_4(project: Path) -> None:
    for words in (["status"], ["status", "--json"]):
        done = ran(project, *words)
        assert done.returncode == 4
        assert done.stdout == ("null\n" if "--json" in words else "")


def test_a_missing_program_is_5_and_says_what_to_do(project: Path) -> None:
    done = ran(project, "nginx-conf", "--nginx", "/nowhere/nginx")
    assert (done.returncode, done.stdout) == (5, "")
    assert "/nowhere/nginx" in done.stderr
    assert "  -> " in done.stderr


def test_a_failure_is_1(project: Path) -> None:
    assert ran(project, "logs").returncode == 1
    assert ran(project, "reload").returncode == 1


def test_down_where_nothing_runs_is_fine(project: Path) -> None:
    done = ran(project, "down")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing was running\n")


def test_a_reader_that_has_gone_is_no_traceback(project: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stack", "nginx-conf"],
        cwd=project,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == 1


# Text for a terminal.


def test_a_status_names_services_and_generations() -> None:
    generation = {"number": 7, "pid": 12, "state": "serving", "since": time.time() - 7300}
    service = {"name": "app", "state": "serving", "restarts": 2, "last_end": "SIGKILL", "generations": [generation]}
    down = {"name": "nginx", "state": "down", "restarts": 0, "last_end": "", "generations": []}
    text = show.status(
        {"name": "shop", "url": "http://x/", "pid": 1, "since": time.time() - 200000, "services": [service, down]}
    )
    lines = text.splitlines()
    assert lines[0] == "shop  http://x/  pid 1, up 2 d"
    assert lines[1] == "serving  app          2 restarts, the last: SIGKILL"
    assert lines[2] == "           generation 7  pid 12  serving  2 h"
    assert lines[3] == "down     nginx"
    assert "\x1b" not in text


def test_a_failed_hop_says_what_to_do() -> None:
    probe = Probe("app", "app server of app", "uwsgi", "unix:/x", "h", "/", "Do this.")
    assert show.finding(of_result(Result(probe, "", "nobody listens there", 0.0125))).splitlines() == [
        "FAIL    12.5 ms  app server of app",
        "                 GET / in uwsgi on unix:/x",
        "                 nobody listens there",
        "              -> Do this.",
    ]


def test_the_servers_command_can_be_pasted() -> None:
    service = Service("app", 0, ("/a b/python", "x"), "/srv", env={"A": "secret"}, env_file="/srv/.env")
    text = show.server_conf(Plan("shop", "/", "/", "/", "", (), (), (), (service,), ()), ("app", "none"))
    assert text.splitlines()[-1] == "'/a b/python' x"
    assert "secret" not in text
    assert "#   what /srv/.env says" in text
