"""What users have: the wheel in a venv of its own. Needs a package index."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.facts.access import hindrance, of_user

from .project import ROOT

ONE_PROCESS = pytest.mark.xdist_group("installed")  # makes the venvs, once
NO_INDEX = re.compile(
    r"NewConnectionError|ConnectionError|name resolution|ConnectTimeout|ProxyError"  # pip
    r"|Failed to fetch|error sending request"  # uv
)
UV = Path(sys.executable).with_name("uv")  # `make` has it, if it is to be had


def pip(*arguments: str) -> None:
    """Pip of the Python that runs the tests."""
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def install(python: Path, *requirements: str, compiled: bool) -> None:
    """Into the venv of that Python: with uv, which takes a tenth of the time, or with pip."""
    if UV.exists():
        run(UV, "pip", "install", *(["--compile-bytecode"] if compiled else []), "--python", python, *requirements)
    else:
        pip("--python", str(python), "install", *([] if compiled else ["--no-compile"]), *requirements)


def run(*argv: str | Path) -> None:
    """Run it to its end; skipped if it finds no package index."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr


def venv(where: Path, *requirements: str, base: str = sys.executable, compiled: bool = False) -> Path:
    """A venv with these; the path of its Python.

    Unless they are compiled, which takes as long as all else, Python does so with what it imports of them, if it may.
    """
    subprocess.run([base, "-m", "venv", "--without-pip", str(where)], check=True, timeout=60)
    python = where / "bin" / "python"
    install(python, *requirements, compiled=compiled)
    return python


def python_for_everybody() -> str:
    """A Python that every user may run, ours or Debian's; "" if there is none that is new enough."""
    new_enough = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
    for each in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        is_open = not hindrance(each, of_user("nobody"), stat.S_IXOTH)
        if is_open and subprocess.run([each, "-c", new_enough], check=False).returncode == 0:
            return each
    return ""


@pytest.fixture(scope="session")
def venvs() -> Iterator[Path]:
    """A place for venvs, where whoever runs an app may read them."""
    with tempfile.TemporaryDirectory(prefix="e-venvs-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def stackctl(venvs: Path) -> Path:
    """The command `stackctl` of an installed wheel that was built from the tree."""
    tree = venvs / "tree"
    tree.mkdir()
    for each in ("stack", "templates"):
        shutil.copytree(ROOT / each, tree / each, ignore=shutil.ignore_patterns("__pycache__"))
    for each in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / each, tree)
    # With the hatchling that is here: one of its own takes longer to install than the wheel to build.
    pip(
        "wheel", "--no-deps", "--no-build-isolation", "--check-build-dependencies", "--wheel-dir", str(venvs), str(tree)
    )
    shutil.rmtree(tree)
    (wheel,) = venvs.glob("stackctl-*.whl")
    base = python_for_everybody() or sys.executable
    return venv(venvs / "stackctl", f"{wheel}[nginx]", base=base, compiled=True).with_name("stackctl")  # for any user
