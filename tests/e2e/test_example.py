"""The example project, as a visitor sees it."""

from __future__ import annotations

import hashlib
import re
import threading
from http.client import HTTPConnection
from urllib.parse import urlencode, urljoin, urlsplit

import pytest

from .client import PATIENCE
from .project import Project

pytestmark = pytest.mark.e2e

NGINX_ETAG = r'(W/)?"[0-9a-f]+-[0-9a-f]+"'  # of mtime and size, in hexadecimal
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_page_is_html_from_the_app(example: Project) -> None:
    example.up()
    page = example.get("/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "You have arrived." in page.text
    assert "127.0.0.1" in page.text
    assert example.address in page.text


@pytest.mark.parametrize(("path", "kind"), [("style.css", "text/css"), ("way.svg", "image/svg+xml")])
def test_static_file_comes_from_nginx_alone(example: Project, path: str, kind: str) -> None:
    example.up("--workers", "1")
    found = example.get(f"/static/{path}")
    assert found.status == 200
    assert found.headers["Content-Type"].partition(";")[0] == kind
    assert re.fullmatch(NGINX_ETAG, found.headers["ETag"])
    assert found.body == (example.directory / "static" / path).read_bytes()
    assert example.get(f"/static/{path}", **{"If-None-Match": found.headers["ETag"]}).status == 304
    assert f"/static/{path}" not in example.log()


def test_facts_of_the_request_are_right(example: Project) -> None:
    example.up()
    facts = example.get("/api/facts")
    assert facts.headers["Content-Type"] == "application/json"
    assert f'"host":"{example.address}"' in facts.text
    assert '"remote_addr":"127.0.0.1"' in facts.text
    assert '"scheme":"http"' in facts.text
    assert '"multiprocess":true' in facts.text


def test_claims_of_a_client_about_itself_are_not_believed(example: Project) -> None:
    example.up()
    facts = example.get("/api/facts", **{"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"})
    assert '"remote_addr":"127.0.0.1"' in facts.text
    assert '"scheme":"http"' in facts.text


@pytest.mark.parametrize("protocol", ["uwsgi", "http"])
def test_redirect_after_a_form_leads_to_the_same_host_and_port(example: Project, protocol: str) -> None:
    example.up("--set", f"server.protocol={protocol}")
    answer = example.post("/guestbook", urlencode({"name": "Zoë", "message": "1 & 2"}).encode(), **FORM)
    assert answer.status == 303
    leads_to = urlsplit(urljoin(f"{example.url}guestbook", answer.headers["Location"]))
    assert leads_to.netloc == example.address
    page = example.get(f"{leads_to.path}?{leads_to.query}")
    assert page.status == 200
    assert "Zoë" in page.text


@pytest.mark.parametrize("protocol", ["uwsgi", "http"])
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


@pytest.mark.parametrize("protocol", ["uwsgi", "http"])
def test_upload_of_20_mb_arrives_whole(example: Project, protocol: str) -> None:
    example.up("--set", f"server.protocol={protocol}")
    content = b"".join(hashlib.sha512(number.to_bytes(4)).digest() for number in range(20_000_000 // 64))
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="20.bin"\r\n\r\n'
    answer = example.post(
        "/upload", head + content + b"\r\n--x--\r\n", **{"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert answer.status == 200
    assert f'"bytes":{len(content)}' in answer.text
    assert hashlib.sha256(content).hexdigest() in answer.text


def test_upload_beyond_max_body_is_refused(example: Project) -> None:
    example.up("--set", "site.max_body=1k")
    assert example.post("/upload", b"x" * 1025).status == 413


def test_download_is_a_million_bytes(example: Project) -> None:
    example.up()
    answer = example.get("/download")
    assert answer.status == 200
    assert len(answer.body) == 1_000_000
    assert answer.headers["Content-Length"] == "1000000"


def test_unknown_page_is_the_app_s_own_404(example: Project) -> None:
    example.up()
    answer = example.get("/nowhere")
    assert answer.status == 404
    assert "</html>" in answer.text


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
