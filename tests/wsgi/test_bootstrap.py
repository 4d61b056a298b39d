"""The server by path, in somebody else's interpreter and beside somebody else's modules."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Server, wait_until

pytestmark = pytest.mark.e2e

BOOTSTRAP = ROOT / "stack" / "wsgi" / "bootstrap.py"
INTERPRETERS = list(dict.fromkeys([sys.executable, *(each for each in ["/usr/bin/python3"] if Path(each).exists())]))

APP = """
import sys, os
import http.client, stack, http, templates
sys.path_at_import = list(sys.path)

def app(environ, start_response):
    start_response("200 OK", [])
    ours = sorted(name for name in sys.modules if name.partition(".")[0] in {"pydantic", "flask", "jinja2"})
    whose = [stack.WHOSE, templates.WHOSE, http.__name__, http.__file__]
    return [repr([*whose, sys.path, os.getcwd(), environ["SERVER_SOFTWARE"], ours]).encode()]
"""


def listens(path: Path) -> bool:
    """Whether one can connect: a socket is there before it listens."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def own_path(interpreter: str) -> list[str]:
    """Where an interpreter looks by itself."""
    argv = [interpreter, "-I", "-c", "import sys; print(*sys.path, sep='\\n')"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("flags", [[], ["-P"]], ids=["plain", "safe-path"])
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_neither_shadows_the_other(folder: Path, interpreter: str, flags: list[str]) -> None:
    project = folder / "project with späces"
    (project / "templates").mkdir(parents=True)
    (project / "templates" / "__init__.py").write_text("WHOSE = 'theirs'")
    (project / "stack.py").write_text("WHOSE = 'theirs'")
    (project / "log.py").write_text("raise RuntimeError('not the server\\'s')")
    (project / "address.py").write_text("raise RuntimeError('not the server\\'s')")
    (project / "main.py").write_text(APP)
    where, errors = folder / "s", folder / "log"
    argv = [interpreter, *flags, str(BOOTSTRAP), "main:app", "--bind", f"unix:{where}"]
    with errors.open("wb") as log:
        process = subprocess.Popen(argv, cwd=project, stderr=log, env={})
    server = Server(process, where, errors)
    try:
        wait_until(lambda: listens(where) or process.poll() is not None, "it listens")
        assert process.poll() is None, server.log
        whose, templates, name, file, path, cwd, software, ours = eval(server.get("/")[1].decode())
        assert (whose, templates, name) == ("theirs", "theirs", "http")
        assert "stack/wsgi" not in file
        assert path[0] == cwd == str(project)
        assert str(BOOTSTRAP.parent) not in path
        assert path[1:] == own_path(interpreter)
        assert software.startswith("stackctl/")
        assert software != "stackctl/unknown"
        assert ours == []
        assert server.stop() == 0
    finally:
        process.kill()
        process.wait()


def test_every_import_of_ours_is_relative_or_of_the_standard_library() -> None:
    for file in BOOTSTRAP.parent.glob("*.py"):
        for line in file.read_text().splitlines():
            word, _, rest = line.strip().partition(" ")
            if word in {"import", "from"} and not rest.startswith("."):
                assert rest.split()[0].partition(".")[0].rstrip(",") in {*sys.stdlib_module_names, "_typeshed"}, (
                    f"{file}: {line}"
                )
