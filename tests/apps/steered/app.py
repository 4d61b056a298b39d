"""A Flask app that a test steers: it waits for files that the test makes, and tells what it is."""

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, request

VERSION = Path(__file__).with_name("version.txt").read_text("utf-8").strip()

app = Flask(__name__)


def wait_for(path: str) -> None:
    """Wait until the test makes this file."""
    until = time.monotonic() + 60
    while not Path(path).exists():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.005)


@app.get("/")
def index() -> str:
    return VERSION


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.post("/echo")
def echo() -> bytes:
    return request.get_data()


@app.get("/slow")
def slow() -> str:
    time.sleep(min(2.0, float(request.args["seconds"])))
    return "slow"


@app.get("/wait")
def wait() -> str:
    path = request.args["for"]
    Path(path + ".begun").touch()
    wait_for(path)
    return "waited"


@app.get("/stream")
def stream() -> Response:
    path = request.args["for"]

    def lines() -> Iterator[str]:
        yield "first\n"
        wait_for(path)
        yield "last\n"

    return Response(lines(), mimetype="text/plain", headers={"X-Accel-Buffering": "no"})


@app.get("/environ/<name>")
def environ(name: str) -> str:
    return os.environ.get(name, "(not set)")


@app.get("/can-import/<name>")
def can_import(name: str) -> str:
    return str(importlib.util.find_spec(name) is not None)


@app.get("/say/<text>")
def say(text: str) -> str:
    app.logger.warning("said %s", text)
    return text


@app.get("/orphan")
def orphan() -> str:
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
    with os.fdopen(reading) as stream:
        return stream.read()
