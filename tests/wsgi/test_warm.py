"""What the workers share of memory: modules that the master imports for them, and places that malloc takes it from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

WARMED = """
import sys
sys.path.append(sys.argv[1])
from stack.wsgi.warm import warm
warm(int(sys.argv[2]))
print(*sys.modules)
"""

ALLOCATING = """
import threading
from pathlib import Path
from stack.wsgi.process import few_arenas
few_arenas()
met = threading.Barrier(8)
def allocate():
    kept = [bytes(100_000) for _ in range(5)]
    met.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
maps = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
ends = [(int(start, 16), int(end, 16)) for start, end in maps]
print(sum(end % (64 << 20) == 0 and end - start > 60 << 20 for start, end in ends))
"""


def warmed(folder: Path, *options: str, workers: int = 3) -> set[str]:
    """The modules of a process that has warmed up where the app is in this folder."""
    argv = [sys.executable, *options, "-c", WARMED, str(ROOT), str(workers)]
    return set(subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True).stdout.split())


def test_what_a_framework_imports_is_there(tmp_path: Path) -> None:
    found = warmed(tmp_path)
    assert {"decimal", "email.parser", "logging", "ssl", "zipfile"} <= found
    assert "flask" not in found


def test_all_that_flask_imports_of_the_standard_library_is_there(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import flask, sys; print(*sys.modules)"]
    ours = {
        each.split(".")[0] for each in subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    }
    assert ours & sys.stdlib_module_names - {each.split(".")[0] for each in warmed(tmp_path)} <= {"pkgutil"}


@pytest.mark.parametrize(
    ("there", "options"),
    [((), ["-S"]), (("queue.py",), []), (("calendar",), []), (("gevent",), [])],
    ids=["without a framework", "a module of the app's", "a package of the app's", "with gevent"],
)
def test_it_stays_cold(tmp_path: Path, there: tuple[str, ...], options: list[str]) -> None:
    for each in there:
        (tmp_path / each).mkdir()
    assert "decimal" not in warmed(tmp_path, *options)


def test_for_two_workers_it_is_not_worth_it(tmp_path: Path) -> None:
    assert "decimal" not in warmed(tmp_path, workers=2)


def test_threads_share_what_malloc_takes_from() -> None:
    def arenas(**environment: str) -> int:
        env = {**os.environ, "PYTHONMALLOC": "malloc", **environment}
        return int(
            subprocess.run(
                [sys.executable, "-c", ALLOCATING], cwd=ROOT, env=env, check=True, capture_output=True
            ).stdout
        )

    assert arenas() <= 1 < arenas(MALLOC_ARENA_MAX="8")
