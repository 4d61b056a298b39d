"""`python -m stack.wsgi.status PATH [--json]`: what a server's workers do, as its `--state PATH` tells."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .state import read

UNHEALTHY = 4  # as the other commands end where nothing runs


def main(arguments: list[str]) -> int:
    """Print it; the exit code."""
    parser = argparse.ArgumentParser(prog="stack.wsgi.status", description="What a server's workers do.")
    parser.add_argument("path", metavar="PATH", help="the socket that the server was given with --state")
    parser.add_argument("--json", action="store_true", help="as the server tells it")
    wanted = parser.parse_args(arguments)
    try:
        found = read(wanted.path)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"nobody tells a state at {wanted.path}: {error}; was the server given --state?\n")
        return UNHEALTHY
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if wanted.json else table(found))
    return 0


def table(found: dict[str, Any]) -> str:
    """A line for each worker, and one for each request in hand."""
    lines = ["    PID  STATE     AGE s  BUSY  REQUESTS     /s  ERRORS  RSS MB  DOING"]
    for each in found["workers"]:
        last = f"last {each['last']['request']}" if each["last"] else "nothing yet"
        doing = [f"{current['request']} for {current['seconds']:.1f} s" for current in each["current"]] or [last]
        numbers = (
            f"{each['pid']:7}  {each['state']:8} {each['age']:6.0f}  {each['busy']:2}/{found['threads']}"
            f" {each['requests']:9} {each['requests_per_second']:6.1f} {each['errors']:7} {each['rss'] >> 20:7}"
        )
        for index, text in enumerate(doing):
            lines.append(f"{numbers if not index else ' ' * len(numbers)}  {_printable(text)}")
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    """A path is whatever a client has sent: nothing of it is for the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
