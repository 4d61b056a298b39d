"""The rendered configurations of app servers, as reviewed: the real programs accept each, and refuse a misspelt one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from stack.desired import Plan
from stack.facts import Interpreter, ServerProgram
from stack.facts.server import find_server

from .rewrite import planned
from .test_golden import WITHIN, put

pytestmark = pytest.mark.e2e

FILES = {"uwsgi": "uwsgi.ini", "uwsgi-http": "uwsgi.ini", "gunicorn": "gunicorn.conf.py"}
each_variant = pytest.mark.parametrize("name", FILES)
# What the configurations of the app server "uwsgi" would say of the app; none of it is in the project of the goldens.
ENTRY = """
def application(environ, start_response):
    start_response("200 OK", [])
    return []
"""


def program(engine: str) -> ServerProgram:
    found = find_server(engine, Interpreter(sys.executable, (3, 11), "ours"), {"PATH": "/nowhere"})
    if found is None:
        pytest.skip(f"there is no {engine} beside {sys.executable}")
    return found


def asked(name: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """What the program says to its configuration, without serving anything."""
    service = planned(name).service("app")
    assert service is not None
    place = directory / "apps" / "app"
    if name == "gunicorn":
        argv = ["--config", str(place / "gunicorn.conf.py"), "--check-config", service.argv[-1]]
    else:
        argv = ["--ini", str(place / "uwsgi.ini"), "--pythonpath", str(place), "--no-server"]
    return subprocess.run(
        [program(name.partition("-")[0]).path, *argv],
        cwd=directory,
        env={"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def placed(name: str, directory: Path) -> Path:
    """The files of the plan, an app in the place of the project's; returns the app server's own file."""
    plan: Plan = planned(name)
    put(plan, directory)
    file = directory / "apps" / "app" / FILES[name]
    (file.parent / "stackctl_entry.py").write_text(ENTRY)
    # Its plugin is not everywhere where Debian's uWSGI is not.
    file.write_text(file.read_text().replace("plugin = python3\n", ""))
    return file


@each_variant
def test_the_program_accepts_it(name: str, tmp_path: Path) -> None:
    placed(name, tmp_path)
    done = asked(name, tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout


@each_variant
def test_the_program_refuses_a_misspelt_line(name: str, tmp_path: Path) -> None:
    file = placed(name, tmp_path)
    right, wrong = (
        ("graceful_timeout = ", "graceful_timeout = -") if name == "gunicorn" else ("listen = ", "lissten = ")
    )
    text = file.read_text()
    assert text.count(f"\n{right}") == 1
    file.write_text(text.replace(f"\n{right}", f"\n{wrong}"))
    done = asked(name, tmp_path)
    assert done.returncode != 0
    assert "lissten" in done.stderr or "timeout" in done.stderr


def test_gunicorn_knows_each_setting(tmp_path: Path) -> None:
    """Of its own accord it does not mind those that it does not know."""
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip(f"gunicorn is not installed beside {sys.executable}")
    from gunicorn.config import KNOWN_SETTINGS  # type: ignore[import-untyped]

    text = placed("gunicorn", tmp_path).read_text()
    names = [line.partition(" = ")[0] for line in text.splitlines() if " = " in line and not line.startswith(" ")]
    known = {each.name for each in KNOWN_SETTINGS}
    assert len(names) > 10
    assert set(names) <= known | NEWER
    assert "bcklog" not in known


NEWER = {"control_socket_disable", "forwarder_headers", "header_map"}  # since gunicorn 22 and 25
