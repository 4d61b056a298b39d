"""A small Flask project: one page that explains how it was served, and a few routes to try.

Nothing here knows about the deployment: ``app`` is an ordinary WSGI application.
Several worker processes run this file side by side, so it keeps nothing in memory between two requests.
"""

import hashlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from time import sleep

from flask import Flask, Response, redirect, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

CHUNK_SIZE = 64 * 1024
FILES = Path(__file__).parent / "files"
PRIVATE = "/private"  # what nginx calls that folder
DOWNLOAD = "four-letters.txt"
LONGEST_NAME = 80
LONGEST_MESSAGE = 500

app = Flask(__name__)
app.logger.setLevel("INFO")


def collect_facts() -> dict[str, str | int | bool]:
    """Say what this one request looks like from inside the application."""
    return {
        "server_software": request.environ.get("SERVER_SOFTWARE", "unknown"),
        "multiprocess": bool(request.environ["wsgi.multiprocess"]),
        "multithread": bool(request.environ["wsgi.multithread"]),
        "pid": os.getpid(),
        "remote_addr": request.remote_addr or "unknown",
        "scheme": request.scheme,
        "host": request.host,
        "python_version": platform.python_version(),
        "flask_version": version("flask"),
    }


def bounded_number(parameter: str, default: float, highest: float) -> float:
    """Read a number from the query string, moved into 0..highest; anything else gives the default."""
    number = request.args.get(parameter, default, type=float)
    return min(highest, max(0.0, number))  # in this order, so that "nan" becomes 0


@app.get("/")
def index() -> ResponseReturnValue:
    """Show the page that explains the way of the request."""
    return render_template("index.html", facts=collect_facts())


@app.get("/api/facts")
def facts() -> ResponseReturnValue:
    """Answer the same facts as JSON."""
    return collect_facts()


@app.post("/guestbook")
def guestbook() -> ResponseReturnValue:
    """Write the entry to the log, then send the browser on, so that a reload does not post it again.

    A real guestbook needs a database: a list kept here would exist once in each worker process.
    """
    name = request.form.get("name", "").strip()[:LONGEST_NAME] or "stranger"
    message = request.form.get("message", "").strip()[:LONGEST_MESSAGE]
    app.logger.info("guestbook: %r wrote %r", name, message)
    return redirect(url_for("thanks", name=name), code=303)


@app.get("/thanks")
def thanks() -> ResponseReturnValue:
    """Thank the guest, whose name travels in the address."""
    name = request.args.get("name", "").strip()[:LONGEST_NAME] or "stranger"
    return render_template("thanks.html", name=name, pid=os.getpid())


@app.get("/stream")
def stream() -> ResponseReturnValue:
    """Send ``n`` lines of text, one each ``delay`` seconds, each as soon as it is made."""
    count = int(bounded_number("n", default=10, highest=100))
    delay = bounded_number("delay", default=0.2, highest=1)

    def lines() -> Iterator[str]:
        for number in range(1, count + 1):
            if number > 1:
                sleep(delay)
            yield f"line {number} of {count}\n"

    response = Response(lines(), mimetype="text/plain")
    response.headers["X-Accel-Buffering"] = "no"  # nginx: pass each line on at once
    response.headers["X-Content-Type-Options"] = "nosniff"  # browser: do not wait to guess the type
    return response


@app.post("/upload")
def upload() -> ResponseReturnValue:
    """Count and hash an uploaded file chunk by chunk; the whole file is never in memory."""
    file = request.files.get("file")
    if file is None or not file.filename:
        return {"error": "send one file in the multipart form field 'file'"}, 400
    size = 0
    digest = hashlib.sha256()
    while chunk := file.stream.read(CHUNK_SIZE):
        size += len(chunk)
        digest.update(chunk)
    return {"filename": file.filename, "bytes": size, "sha256": digest.hexdigest()}


@app.get("/download")
def download() -> ResponseReturnValue:
    """Hand out a file that is not public. Here one would look whether this visitor may have it.

    Where nginx can send it, which ``[site] private`` in stack.toml lets it say, this worker need not.
    """
    if PRIVATE not in request.headers.get("X-Accel-Private", "").split():
        return send_file(FILES / DOWNLOAD, as_attachment=True)
    response = Response(mimetype="text/plain")  # nginx sends the file with these headers
    response.headers.set("Content-Disposition", "attachment", filename=DOWNLOAD)
    response.headers["X-Accel-Redirect"] = f"{PRIVATE}/{DOWNLOAD}"
    return response


@app.get("/slow")
def slow() -> ResponseReturnValue:
    """Sleep before answering: a request to have under way while the server reloads."""
    seconds = bounded_number("seconds", default=3, highest=10)
    sleep(seconds)
    return Response(f"slept {seconds:g} seconds in worker {os.getpid()}\n", mimetype="text/plain")


@app.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Tell whoever watches that this worker answers."""
    return Response("ok\n", mimetype="text/plain")


@app.errorhandler(HTTPException)
def show_error(error: HTTPException) -> ResponseReturnValue:
    """Show any HTTP error, such as 404, as a page in the style of the others."""
    page = render_template("error.html", error=error)
    headers = [(name, value) for name, value in error.get_headers() if name != "Content-Type"]
    return page, error.code or 500, headers
