"""wrk, the load: one run of it, and what it counted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from stack.errors import MissingProgramError, StackError
from stack.operations.visitors import Request
from stack.render import render

__all__ = ["Counted", "counted", "find", "run", "version"]

VERSION = re.compile(r"wrk (?:debian/)?([\w.-]+)")
STUCK = 30.0  # seconds beyond the run's own in which it must have ended
ERRORS = {
    "status": "answered 400 or more",
    "connect": "could not connect",
    "read": "broke off",
    "write": "could not be sent",
    "timeout": "took too long",
}


@dataclass(frozen=True, slots=True)
class Counted:
    """What wrk counted: answers, seconds, percentiles in seconds; `failures` in words, by how many."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failures: dict[str, int]


def find() -> str:
    """The path of wrk.

    Raises:
        MissingProgramError: there is none.
    """
    found = shutil.which("wrk")
    if found is None:
        raise MissingProgramError(
            "wrk, which makes the load, is not on this machine",
            "Install it: apt install wrk (Debian, Ubuntu), brew install wrk, pacman -S wrk, apk add wrk;\n"
            "or from source: https://github.com/wg/wrk",
        )
    return found


def version(program: str) -> str:
    """As it says it."""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=STUCK, check=False)
    said = VERSION.search(done.stdout + done.stderr)
    return said[1] if said else "of an unknown version"


def run(program: str, asked: Request, connections: int, seconds: int, directory: Path, think: float = 0.0) -> Counted:
    """Asks again and again, over so many connections. Its script is put into `directory`.

    Before each request a connection waits `think` seconds on average, at random (exponentially distributed); with 0 it
    never does, and the load is as much as is answered.

    Raises:
        StackError: it did not run to its end.
    """
    script = directory / f"{threading.get_ident()}.lua"
    headers = {"Host": asked.host} | ({"Content-Type": asked.content_type} if asked.content_type else {})
    text = render("wrk/turn.lua.j2", method=asked.method, body=asked.body, headers=headers, think=think)
    script.write_text(text, "utf-8")
    argv = [
        program,
        *("--threads", "1"),
        *("--connections", str(connections)),
        *("--duration", f"{seconds}s"),
        *("--timeout", f"{max(1, round(asked.within))}s"),
        *("--script", str(script)),
        f"http://{asked.address}{asked.path}",
    ]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + asked.within + STUCK,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"{program} did not run: {error}") from None
    found = counted(done.stdout)
    if done.returncode or found is None:
        raise StackError(f"{program} failed with exit code {done.returncode}", "", done.stdout + done.stderr)
    return found


def counted(said: str) -> Counted | None:
    """What the script's line tells, which is the last; None where there is no such line."""
    try:
        told = json.loads(said.rstrip().rpartition("\n")[2])
        failures = {words: told[key] for key, words in ERRORS.items() if told[key]}
        seconds, p50, p99 = (told[key] / 1e6 for key in ("duration", "p50", "p99"))
        return Counted(told["requests"], seconds, p50, p99, failures)
    except (ValueError, KeyError, TypeError):
        return None
