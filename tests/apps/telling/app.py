"""A Flask app that tells what its app server tells it of a request, and of what it runs in."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, redirect, request, url_for
from werkzeug.wrappers import Response as Redirect

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "telling"


@app.route("/facts", methods=["GET", "POST"])
@app.route("/facts/<path:rest>", methods=["GET", "POST"])
def facts(rest: str = "") -> dict[str, object]:
    """The environ, as far as it is text."""
    told = {name: value for name, value in request.environ.items() if isinstance(value, str)}
    return {
        **told,
        "rest": rest,
        "remote": request.remote_addr,
        "url": request.url,
        "body": request.get_data().decode(),
    }


@app.post("/read")
def read() -> str:
    return hashlib.sha256(request.get_data()).hexdigest()


@app.post("/unread")
def unread() -> str:
    return "not looked at"


@app.get("/stream")
def stream() -> Response:
    path = Path(request.args["for"])

    def lines() -> Iterator[str]:
        yield "first\n"
        until = time.monotonic() + 60
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.005)
        yield "last\n"

    return Response(lines(), mimetype="text/plain", headers={"X-Accel-Buffering": "no"})


@app.get("/away")
def away() -> Redirect:
    return redirect(url_for("facts", _external=True))


@app.get("/variables")
def variables() -> dict[str, str]:
    return dict(os.environ)


@app.get("/who")
def who() -> dict[str, object]:
    return {"uid": os.geteuid(), "groups": os.getgroups(), "cwd": str(Path.cwd()), "file": __file__}
