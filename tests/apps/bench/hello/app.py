"""A Flask app with next to nothing in its routes: what is measured is the way to them and back."""

import itertools
import time

from flask import Flask, Response, request

SLEEP = 0.05  # seconds
EVERY = 20  # of these requests, one sleeps
MEGABYTE = b"x" * 1024**2
CHUNKS = [b"x" * 99 + b"\n"] * 100

app = Flask(__name__)
numbers = itertools.count(1)


@app.get("/")
def hello():
    return "hello\n"


@app.get("/slow")
def slow():
    time.sleep(SLEEP)
    return "slept\n"


@app.get("/mixed")
def mixed():
    return slow() if next(numbers) % EVERY == 0 else hello()


@app.get("/download")
def download():
    return Response(MEGABYTE, mimetype="application/octet-stream")


@app.post("/upload")
def upload():
    return f"{len(request.get_data())}\n"


@app.get("/stream")
def stream():
    return Response((each for each in CHUNKS), mimetype="text/plain")
