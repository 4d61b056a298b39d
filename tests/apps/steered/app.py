"""An app that a test steers: it waits for files that the test makes, and tells what it is.

Without a framework: what most tests are about does not depend on one, and importing it for every worker is most of the
work of a start.
"""

import importlib.util
import os
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs

VERSION = Path(__file__).with_name("version.txt").read_text("utf-8").strip()


def app(environ, start_response):
    given = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    _, name, *rest = environ["PATH_INFO"].split("/")
    route = ROUTES.get(name)
    if route is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there is nothing\n"]
    answer = route(environ, *rest, **given)
    if isinstance(answer, (str, bytes)):
        body = answer.encode() if isinstance(answer, str) else answer
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [body]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("X-Accel-Buffering", "no")])
    return answer


def wait_for(path):
    """Wait until the test makes this file."""
    until = time.monotonic() + 60
    while not Path(path).exists():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.005)


def index(_environ):
    return VERSION


def pid(_environ):
    return str(os.getpid())


def echo(environ):
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def slow(_environ, seconds):
    time.sleep(min(2.0, float(seconds)))
    return "slow"


def wait(_environ, **given):
    path = given["for"]
    Path(path + ".begun").touch()
    wait_for(path)
    return "waited"


def stream(_environ, **given):
    yield b"first\n"
    wait_for(given["for"])
    yield b"last\n"


def large(_environ, size):
    return [b"x" * int(size)]


def endless(_environ):
    while True:
        yield b"more\n"
        time.sleep(0.05)


def environment(_environ, name):
    return os.environ.get(name, "(not set)")


def can_import(_environ, name):
    return str(importlib.util.find_spec(name) is not None)


def say(_environ, text):
    sys.stderr.write(f"said {text}\n")
    sys.stderr.flush()
    return text


def orphan(_environ):
    """Leave a process without a parent, which ends at once; its pid."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild:
            os.write(writing, str(grandchild).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        return lines.read()


ROUTES = {
    "": index,
    "pid": pid,
    "echo": echo,
    "slow": slow,
    "wait": wait,
    "stream": stream,
    "large": large,
    "endless": endless,
    "environ": environment,
    "can-import": can_import,
    "say": say,
    "orphan": orphan,
}
