"""The example project, as a visitor sees it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlencode, urljoin, urlsplit

import pytest

from .client import PATIENCE
from .project import EXAMPLE, Project

pytestmark = pytest.mark.e2e

NGINX_ETAG = r'(W/)?"[0-9a-f]+-[0-9a-f]+"'  # of mtime and size, in hexadecimal
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


BY_NGINX = [
    pytest.param(("nginx", each), id=each, marks=pytest.mark.xdist_group(f"example by {each}"))
    for each in ("uwsgi", "http", "fastcgi", "scgi")
]


@pytest.fixture(scope="module")
def shown(request: pytest.FixtureRequest) -> Iterator[Project]:
    """The example, served by this web server in this protocol."""
    web, protocol = request.param
    project = Project(EXAMPLE)
    try:
        settings = (f"site.web={web}", f"server.protocol={protocol}", "site.max_body=20001k")
        project.up("--workers", "1", *(f"--set={each}" for each in settings))
        yield project
    finally:
        project.end()


def test_visitor_gets_every_page_as_it_should_be(example: Project) -> None:
    example.up()
    page = example.get("/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "You have arrived." in page.text
    assert example.address in page.text

    facts = json.loads(example.get("/api/facts").body)
    assert facts["host"] == example.address
    assert facts["remote_addr"] == "127.0.0.1"
    assert facts["scheme"] == "http"
    assert facts["multiprocess"]

    nowhere = example.get("/nowhere")
    assert nowhere.status == 404
    assert "</html>" in nowhere.text


@pytest.mark.parametrize("shown", [*BY_NGINX, pytest.param(("none", "http"), id="none")], indirect=True)
def test_private_file_comes_only_by_the_app_and_from_nginx_if_there_is_one(shown: Project) -> None:
    by_nginx = "nginx" in {each["name"] for each in shown.status()["services"]}
    data = (shown.directory / "files" / "four-letters.txt").read_bytes()
    found = shown.get("/download", **{"X-Accel-Private": "/private"} if by_nginx else {})
    assert (found.status, found.body) == (200, data)
    assert ("ETag" in found.headers and bool(re.fullmatch(NGINX_ETAG, found.headers["ETag"]))) is by_nginx
    assert found.headers["Content-Type"].startswith("text/plain")
    assert found.headers["Content-Disposition"] == "attachment; filename=four-letters.txt"
    assert "X-Accel-Redirect" not in found.headers
    assert shown.get("/private/four-letters.txt").status == 404
    part = shown.get("/download", Range="bytes=5-11")
    assert (part.status, part.body) == (206, b"letters")


def test_static_files_come_from_nginx_alone(example: Project) -> None:
    example.up("--workers", "1")
    for path, kind in (("style.css", "text/css"), ("way.svg", "image/svg+xml")):
        found = example.get(f"/static/{path}")
        assert found.status == 200
        assert found.headers["Content-Type"].partition(";")[0] == kind
        assert re.fullmatch(NGINX_ETAG, found.headers["ETag"])
        assert found.body == (example.directory / "static" / path).read_bytes()
        assert example.get(f"/static/{path}", **{"If-None-Match": found.headers["ETag"]}).status == 304
    (example.directory / "static" / "new.txt").write_text("new")
    os.kill(example.pid("app"), signal.SIGSTOP)
    try:
        assert example.get("/static/new.txt").text == "new"
    finally:
        os.kill(example.pid("app"), signal.SIGCONT)


@pytest.mark.parametrize("shown", BY_NGINX[:1], indirect=True)
def test_nginx_takes_the_cpu_from_nobody_in_the_middle_of_an_answer(shown: Project) -> None:
    policies = {name: {os.sched_getscheduler(each) for each in shown.workers(name)} for name in ("nginx", "app")}
    assert policies == {"nginx": {os.SCHED_BATCH}, "app": {os.SCHED_OTHER}}


@pytest.mark.parametrize("shown", BY_NGINX, indirect=True)
def test_what_a_visitor_sends_arrives_and_leads_back_to_the_site(shown: Project) -> None:
    lies = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "other.test"}
    facts = json.loads(shown.get("/api/facts", **lies).body)
    assert (facts["remote_addr"], facts["scheme"], facts["host"]) == ("127.0.0.1", "http", shown.address)

    answer = shown.post("/guestbook", urlencode({"name": "Zoë", "message": "1 & 2"}).encode(), **FORM)
    assert answer.status == 303
    leads_to = urlsplit(urljoin(f"{shown.url}guestbook", answer.headers["Location"]))
    assert leads_to.netloc == shown.address
    page = shown.get(f"{leads_to.path}?{leads_to.query}")
    assert page.status == 200
    assert "Zoë" in page.text

    content = b"".join(hashlib.sha512(number.to_bytes(4)).digest() for number in range(20_000_000 // 64))
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="20.bin"\r\n\r\n'
    sent = shown.post("/upload", head + content + b"\r\n--x--\r\n", **MULTIPART)
    assert json.loads(sent.body) == {
        "filename": "20.bin",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


@pytest.mark.parametrize("protocol", ["uwsgi", "http", "fastcgi", "scgi"])
def test_first_line_of_a_stream_arrives_before_the_last_is_made(steered: Project, protocol: str) -> None:
    steered.up("--set", f"server.protocol={protocol}")
    go_on = steered.event("go-on")
    connection = HTTPConnection("127.0.0.1", steered.port, timeout=PATIENCE)
    try:
        connection.request("GET", f"/stream?for={go_on}")
        response = connection.getresponse()
        assert response.readline() == b"first\n"
        go_on.touch()
        assert response.read() == b"last\n"
    finally:
        connection.close()


def test_upload_beyond_max_body_is_refused(example: Project) -> None:
    example.up("--workers", "1", "--set", "site.max_body=1k")
    assert example.post("/upload", b"x" * 1025).status == 413


def test_requests_of_a_slow_reader_and_writer_do_not_hold_the_only_worker(steered: Project) -> None:
    steered.up("--workers", "1", "--set", "server.threads=1")
    writer = HTTPConnection("127.0.0.1", steered.port, timeout=PATIENCE)
    try:
        writer.putrequest("POST", "/echo")
        writer.putheader("Content-Length", "100000")
        writer.endheaders()
        writer.send(b"x" * 1000)
        assert steered.get("/pid").status == 200
        writer.send(b"x" * 99000)
        assert len(writer.getresponse().read()) == 100000
    finally:
        writer.close()


def test_requests_wait_for_a_free_thread_rather_than_fail(steered: Project) -> None:
    steered.up("--workers", "1", "--set", "server.threads=1")
    go_on = steered.event("go-on")
    answers: list[int] = []
    visitors = [
        threading.Thread(target=lambda: answers.append(steered.get(f"/wait?for={go_on}").status)) for _ in range(5)
    ]
    for each in visitors:
        each.start()
    go_on.touch()
    for each in visitors:
        each.join(PATIENCE)
    assert answers == [200] * 5
