"""Frameworks, and a project with uploads, as they come from the package index: one stack serves them all, unchanged."""

from __future__ import annotations

import hashlib
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

import pytest

from .client import Answer
from .installed import venv
from .project import Project

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("frameworks")]

FLASK = """
from flask import Flask, Response, redirect, request

app = Flask(__name__)

@app.get("/")
def index():
    return f"flask {request.args.get('name')} {request.url}"

@app.post("/form")
def form():
    return request.form["name"]

@app.get("/away")
def away():
    return redirect("/")

@app.get("/stream")
def stream():
    return Response(iter(["a", "b"]), mimetype="text/plain")
"""
BOTTLE = """
import bottle
from bottle import redirect, request, route

app = bottle.default_app()

@route("/")
def index():
    return f"bottle {request.query.getunicode('name')} {request.url}"

@route("/form", method="POST")
def form():
    return request.forms.getunicode("name")

@route("/away")
def away():
    redirect("/")

@route("/stream")
def stream():
    yield "a"
    yield "b"
"""
PYRAMID = """
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

VIEWS = {
    "/": lambda request: Response(f"pyramid {request.params.get('name')} {request.url}"),
    "/form": lambda request: Response(request.POST["name"]),
    "/away": lambda request: HTTPFound("/"),
    "/stream": lambda request: Response(app_iter=iter([b"a", b"b"]), content_type="text/plain"),
}

with Configurator() as config:
    for path, view in VIEWS.items():
        config.add_route(path, path)
        config.add_view(view, route_name=path)
    app = config.make_wsgi_app()
"""
DJANGO = """
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

urlpatterns = [
    path("", lambda request: HttpResponse(f"django {request.GET.get('name')} {request.build_absolute_uri()}")),
    path("form", csrf_exempt(lambda request: HttpResponse(request.POST["name"]))),
    path("away", lambda request: HttpResponseRedirect("/")),
    path("stream", lambda request: StreamingHttpResponse(iter(["a", "b"]), content_type="text/plain")),
]
"""
APPS = {
    "flask": "app:app",
    "bottle": "app:app",
    "pyramid": "app:app",
    "django": "shop.wsgi:application",
    "pypiserver": "pypiserver:app(root='packages', authenticate=[], password_file='.')",
}
NAME = "Ådå & co"


@pytest.fixture(scope="module")
def served(venvs: Path) -> Iterator[Project]:
    """One stack, and a site for each by its name; Django's project is as `startproject` makes it, but for its pages."""
    python = venv(venvs / "frameworks", "flask", "bottle", "pyramid", "django", "pypiserver")
    project = Project(None)
    try:
        for name, code in (("flask", FLASK), ("bottle", BOTTLE), ("pyramid", PYRAMID)):
            project.write(f"{name}-site/app.py", code)
        (project.directory / "django-site").mkdir()
        packages = project.directory / "pypiserver-site" / "packages"
        packages.mkdir(parents=True)
        packages.chmod(0o777)  # root's app is another user's
        argv = [str(python), "-m", "django", "startproject", "shop", str(project.directory / "django-site")]
        subprocess.run(argv, check=True, timeout=60)
        project.write("django-site/shop/urls.py", DJANGO)
        tables = (
            f'[apps.{name}]\ndirectory = "{name}-site"\ntarget = "{target}"\npython = "{python}"\n'
            f'[sites.{name}]\napp = "{name}"\nlisten = "{project.address}"\nserver_names = ["{name}.localhost"]\n'
            for name, target in APPS.items()
        )
        project.write("stack.toml", "[server]\nworkers = 1\n" + "".join(tables))
        project.run("up", "-d")
        yield project
    finally:
        project.end()


@pytest.mark.parametrize("name", ["flask", "bottle", "pyramid", "django"])
def test_hello_is_served_unchanged(served: Project, name: str) -> None:
    host = f"{name}.localhost:{served.port}"
    query = f"name={quote(NAME)}"
    assert unquote(served.get(f"/?{query}", Host=host).text) == f"{name} {NAME} http://{host}/?name={NAME}"
    form = urlencode({"name": NAME}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert served.post("/form", form, Host=host, **kind).text == NAME
    away = served.get("/away", Host=host)
    assert away.status in {302, 303}
    assert away.headers["Location"] in {"/", f"http://{host}/"}
    assert served.get("/stream", Host=host).text == "ab"
    assert served.get("/missing", Host=host).status == 404


def test_package_index_takes_and_gives_packages(served: Project) -> None:
    """PyPI's own way to upload, a form with a file in it, into pypiserver."""
    host = f"pypiserver.localhost:{served.port}"
    data = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(100_000))

    def upload() -> Answer:
        edge = uuid.uuid4().hex
        name = 'Content-Disposition: form-data; name=":action"\r\n\r\nfile_upload'
        file = 'Content-Disposition: form-data; name="content"; filename="thing-1.0.tar.gz"\r\n\r\n'
        body = f"--{edge}\r\n{name}\r\n--{edge}\r\n{file}".encode() + data + f"\r\n--{edge}--\r\n".encode()
        return served.post("/", body, Host=host, **{"Content-Type": f"multipart/form-data; boundary={edge}"})

    assert upload().status == 200
    assert upload().status == 409, "it is there already"
    assert "thing-1.0.tar.gz" in served.get("/simple/thing/", Host=host).text
    found = served.get("/packages/thing-1.0.tar.gz", Host=host)
    assert (found.status, found.body) == (200, data)
    part = served.get("/packages/thing-1.0.tar.gz", Host=host, Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, data[1000:2000])
