"""A WSGI app that misbehaves when it is asked to."""

import ctypes
import os
import time
from pathlib import Path
from urllib.parse import parse_qsl

VERSION = Path(__file__).with_name("version.txt").read_text("utf-8").strip()
HOARD = []


class Closed:
    """A body that goes on and on, and leaves a file when it is closed."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        while True:
            yield bytes(1024)
            time.sleep(0.01)

    def close(self):
        Path(self.path).touch()


def stream():
    """A second of chunks."""
    for number in range(20):
        yield f"{number}\n".encode()
        time.sleep(0.05)


def wait(path):
    """Wait until the test makes this file."""
    Path(path + ".begun").touch()
    until = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < until:
        time.sleep(0.005)
    return "waited"


def loop():
    while True:
        pass


def sleep_in_c():
    """Holds the interpreter: no other thread of the process runs."""
    ctypes.PyDLL(None).sleep(600)


def hoard():
    """Takes memory until there is none, and keeps it."""
    while True:
        HOARD.append(bytearray(1 << 20))


def recurse():
    recurse()


def fail(name):
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError}[name]("meant")


def slow(seconds):
    time.sleep(min(5.0, float(seconds)))
    return "slow"


ROUTES = {
    "/": lambda: VERSION,
    "/time": lambda: str(time.time()),
    "/pid": lambda: str(os.getpid()),
    "/slow": slow,
    "/wait": wait,
    "/loop": loop,
    "/sleep-in-c": sleep_in_c,
    "/exit": lambda: os._exit(3),
    "/hoard": hoard,
    "/recurse": recurse,
    "/fail": fail,
    "/endless": Closed,
    "/stream": stream,
}


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/echo":
        answer = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    else:
        answer = ROUTES[path](**dict(parse_qsl(environ["QUERY_STRING"])))
    if not isinstance(answer, (bytes, str)):
        start_response("200 OK", [("X-Accel-Buffering", "no")])
        return answer
    body = answer.encode() if isinstance(answer, str) else answer
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
