"""Hostile input, much of it: against each parser in process, then against a server on a unix socket.

FUZZ_SEED replays a run, FUZZ_FIRST and FUZZ_INPUTS a part of it; FUZZ_CONNECTIONS is how many connections there are.
Something that hangs is shown with its stack, and ends the run.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.wsgi.conftest import APPS, ROOT, Server, all_ready, answers, wait_until
from tests.wsgi.hostile import TARGETS, check, harass

SEED = os.environ.get("FUZZ_SEED") or str(SystemRandom().randrange(1_000_000))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
INPUTS = int(os.environ.get("FUZZ_INPUTS", "1000000"))
CONNECTIONS = int(os.environ.get("FUZZ_CONNECTIONS", "20000"))
STRIDE = 10_000
HANGS = 120  # seconds for so many inputs, or connections, which take a few
GROWS = 64 * 1024  # kilobytes that all inputs of a parser may add to what the process has


def main() -> int:
    tell(f"FUZZ_SEED={SEED} FUZZ_FIRST={FIRST} FUZZ_INPUTS={INPUTS} FUZZ_CONNECTIONS={CONNECTIONS}")
    for target in TARGETS:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(FIRST, FIRST + INPUTS):
            if number % STRIDE == 0:
                faulthandler.dump_traceback_later(HANGS, exit=True)
            try:
                check(target, SEED, number)
            except BaseException:
                tell(f"{target.name}: FUZZ_SEED={SEED} FUZZ_FIRST={number} FUZZ_INPUTS=1 FUZZ_CONNECTIONS=0")
                raise
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        tell(f"{target.name}: {INPUTS} inputs; memory {grown:+d} kB")
        if grown > GROWS:
            return 1
    if CONNECTIONS:
        with served() as server:
            for first in range(0, CONNECTIONS, STRIDE):
                faulthandler.dump_traceback_later(HANGS, exit=True)
                harass(server, SEED, range(first, min(CONNECTIONS, first + STRIDE)))
            tell(f"a server: {CONNECTIONS} connections")
    faulthandler.cancel_dump_traceback_later()
    return 0


@contextmanager
def served() -> Iterator[Server]:
    """A server of its own, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="w-") as name:
        path, errors = Path(name, "sock"), Path(name, "log")
        argv = [
            sys.executable,
            "-m",
            "stack.wsgi",
            "wsgi_reads:app",
            "--bind",
            f"unix:{path}",
            "--pythonpath",
            str(APPS),
            "--state",
            f"{name}/state",
        ]
        with errors.open("wb") as log:
            process = subprocess.Popen(argv, cwd=ROOT, stderr=log, stdin=subprocess.DEVNULL)
        server = Server(process, path, errors)
        try:
            wait_until(lambda: answers(server), f"the server answers; its log: {server.log}")
            wait_until(lambda: all_ready(f"{name}/state"), "all its workers have opened what they need")
            yield server
        finally:
            server.stop()


def tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - for whoever runs it


if __name__ == "__main__":
    sys.exit(main())
