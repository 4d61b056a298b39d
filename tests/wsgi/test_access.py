"""The access log: what its lines say, and that they are whole, whoever writes them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack.wsgi import access
from stack.wsgi.access import KNOWN, KNOWN_LONGEST, LONGEST, MOST_PENDING, Access, Asked, identify, line

from .conftest import Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

ASKED: Asked = ("192.0.2.1", "ann", "GET", "/a?b=c", "/a", "HTTP/1.1", "http://ref/", "agent/1")


def test_common_and_combined_are_apache_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-05:30")
    import time

    time.tzset()
    try:
        common = line("common", ASKED, 200, 12, 0.5, 1_700_000_000.25)
        assert common == b'192.0.2.1 - ann [15/Nov/2023:03:43:19 +0530] "GET /a?b=c HTTP/1.1" 200 12\n'
        combined = line("combined", ASKED, 304, 0, 0.5, 1_700_000_000.25)
        assert combined.endswith(b'"GET /a?b=c HTTP/1.1" 304 - "http://ref/" "agent/1"\n')
        assert json.loads(line("json", (*ASKED, "id-1"), 200, 12, 0.5, 1_700_000_000.25)) == {
            "time": "2023-11-15T03:43:19.750+05:30",
            "pid": os.getpid(),
            "request_id": "id-1",
            "remote_addr": "192.0.2.1",
            "remote_user": "ann",
            "method": "GET",
            "target": "/a?b=c",
            "protocol": "HTTP/1.1",
            "status": 200,
            "bytes": 12,
            "seconds": 0.5,
            "referer": "http://ref/",
            "user_agent": "agent/1",
        }
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("form", ["common", "combined"])
def test_nobody_forges_a_line_or_a_field(form: str) -> None:
    evil = '" 200 1\n1.2.3.4 - - \\ \x1b[31m\xff\u20ac'
    data = line(form, ("a b", "c d", "GET", evil, None, "HTTP/1.1", evil, evil), 200, 1, 0.0, 0.0)
    assert data.count(b"\n") == 1
    assert data.isascii()
    assert data.startswith(rb"a\x20b - c\x20d [")
    assert rb"GET \" 200 1\x0a1.2.3.4 - - \\ \x1b[31m\xff" in data
    assert len(re.findall(rb'(?<!\\)"', data)) == {"common": 2, "combined": 6}[form]


def test_json_has_utf_8_as_it_was_sent() -> None:
    sent = "/caf\u00e9\n".encode().decode("latin-1")
    data = line("json", (None, None, "GET", None, sent, None, None, "\xff", None), 200, 1, 0.0, 0.0)
    assert data.count(b"\n") == 1
    found = json.loads(data)
    assert (found["target"], found["user_agent"]) == ("/caf\u00e9\n", "\\xff")


@pytest.mark.parametrize("form", ["common", "combined", "json"])
@pytest.mark.parametrize("letter", ["a", "\xff", "\x01", '"'])
def test_line_is_never_longer_than_a_pipe_takes_whole(form: str, letter: str) -> None:
    ident = ("id-1",) if form == "json" else ()
    asked = tuple(letter * 60_000 for _ in (*ASKED, *ident))
    assert len(line(form, asked, 200, 1, 0.0, 0.0)) <= LONGEST
    short = (*ASKED[:3], "/" + "x" * 3000, *ASKED[4:], *ident)
    assert b"x" * 3000 in line(form, short, 200, 1, 0.0, 0.0), "what fits is not cut"


def test_lines_of_whatever_visitors_ask_take_no_more_than_a_little_memory() -> None:
    for each in range(2 * KNOWN):
        line("common", (*ASKED[:3], f"/{each}", *ASKED[4:]), 200, 1, 0.0, 0.0)
        line("common", (*ASKED[:3], f"/{each}" + "x" * KNOWN_LONGEST, *ASKED[4:]), 200, 1, 0.0, 0.0)
    assert 0 < len(access._known) <= KNOWN
    assert max(len("".join(filter(None, request))) for _, request in access._known) <= KNOWN_LONGEST


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("abc-1.2:3/4+5=6@7", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("a\nb", False), ("", False)],
)
def test_only_plain_request_ids_are_taken_over(sent: str, kept: bool) -> None:  # noqa: FBT001
    environ = {"HTTP_X_REQUEST_ID": sent}
    identify(environ)
    found = environ["HTTP_X_REQUEST_ID"]
    assert (found == sent) is kept
    assert kept or re.fullmatch("[0-9a-f]{32}", found)


def lines(path: Path) -> list[str]:
    return path.read_text("ascii").splitlines() if path.exists() else []


@pytest.mark.e2e
def test_every_request_has_its_line(launch: Callable[..., Server], folder: Path) -> None:
    log = folder / "access"
    server = launch("wsgi_odd:app", "--access-log", str(log), "--access-format", "json", ready=False)
    wait_until(lambda: "listening on" in server.log, "it listens")
    given = {"REMOTE_ADDR": "192.0.2.9", "HTTP_X_REQUEST_ID": "from-nginx"}
    requests: list[Callable[[], object]] = [
        lambda: server.uwsgi("/echo", b"1234567", REQUEST_METHOD="POST", **given),
        lambda: server.get("/raise"),
        lambda: server.get("/stream?" + str(log)),
        lambda: server.get("/file"),
        lambda: server.get("/", "HEAD"),
        lambda: server.raw(b"GET / HTTP/1.1\r\n\r\n"),
    ]
    for count, ask in enumerate(requests, 1):
        ask()
        wait_until(lambda count=count: len(lines(log)) == count, "its line is there")  # type: ignore[misc]
    found = [json.loads(each) for each in lines(log)]
    assert [(each["method"], each["target"], each["status"], each["bytes"]) for each in found] == [
        ("POST", "/echo", 200, 7),
        ("GET", "/raise", 500, 22),
        ("GET", f"/stream?{log}", 200, 11),
        ("GET", "/file", 200, 999_995),
        ("HEAD", "/", 200, 0),
        ("", "", 400, 0),
    ]
    assert found[0]["request_id"] == "from-nginx"
    assert found[0]["remote_addr"] == "192.0.2.9"
    assert {each["pid"] for each in found} <= set(server.workers())
    assert f"GET /raise: raised (request {found[1]['request_id']})" in server.log, "one id in both logs"
    assert datetime.fromisoformat(found[0]["time"]).tzinfo is not None
    assert log.stat().st_mode & 0o777 == 0o640


@pytest.mark.e2e
def test_lines_for_a_file_are_written_together_and_never_many_late(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written = Access(str(path), "common")
    for _ in range(MOST_PENDING - 1):
        written.write(ASKED, 200, 1, 0.0)
    assert path.read_text() == ""
    written.write(ASKED, 204, 1, 0.0)
    lines = path.read_text().splitlines()
    assert len(lines) == MOST_PENDING
    assert " 204 " in lines[-1]
    written.write(ASKED, 404, 1, 0.0)
    written.reopen()
    assert " 404 " in path.read_text().splitlines()[-1], "before the file is left"


def test_app_sees_the_request_id(server: Server) -> None:
    assert b"'HTTP_X_REQUEST_ID': 'abc'" in server.raw(b"GET /environ HTTP/1.0\r\nX-Request-ID: abc\r\n\r\n")
    assert re.search(rb"'HTTP_X_REQUEST_ID': '[0-9a-f]{32}'", server.raw(b"GET /environ HTTP/1.0\r\n\r\n"))


@pytest.mark.e2e
def test_lines_of_several_processes_do_not_mix(launch: Callable[..., Server], folder: Path) -> None:
    log = folder / "access"
    server = launch("wsgi_odd:app", "--workers", "3", "--access-log", str(log), "--access-format", "common")
    target = "/?" + "x" * 3000

    def ask() -> None:
        client = server.client()
        for _ in range(100):
            client.request("GET", target)
            client.getresponse().read()
        client.close()

    askers = [threading.Thread(target=ask) for _ in range(6)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    whole = re.compile(rf'127\.0\.0\.1 - - \[[^]]*\] "GET (/|{re.escape(target)}) HTTP/1\.1" 200 6')
    wait_until(lambda: sum(target in each for each in lines(log)) == 600, "all lines are there")
    assert all(whole.fullmatch(each) for each in lines(log))


@pytest.mark.e2e
def test_logs_are_opened_again_on_usr1(launch: Callable[..., Server], folder: Path) -> None:
    access, errors = folder / "access", folder / "errors"
    server = launch("wsgi_odd:app", "--workers", "2", "--access-log", str(access), "--log-file", str(errors))
    server.get("/raise")
    wait_until(lambda: "raised" in errors.read_text(), "the error log has it")
    access.rename(folder / "access.1")
    errors.rename(folder / "errors.1")
    server.process.send_signal(signal.SIGUSR1)

    def moved() -> bool:
        server.get("/raise")
        return access.exists() and len({each.split("[")[1] for each in raised(errors)}) == 2

    def raised(path: Path) -> list[str]:
        return re.findall(r"wsgi\[\d+", path.read_text()) if path.exists() else []

    wait_until(moved, "both workers write to the new files")
    assert server.log == "", "nothing is left on stderr"
    kept = (folder / "errors.1").read_text()
    assert server.stop() == 0
    assert (folder / "errors.1").read_text() == kept, "the master has left the old file, too"
    assert "stopped" in errors.read_text()


@pytest.mark.e2e
def test_log_that_cannot_be_written_costs_lines_and_no_request(launch: Callable[..., Server]) -> None:
    server = launch("wsgi_odd:app", "--access-log", "/dev/full")
    assert server.get("/")[1] == b"hello\n"


@pytest.mark.e2e
def test_pipe_that_nobody_reads_costs_lines_and_no_request(launch: Callable[..., Server]) -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    try:
        server = launch("wsgi_odd:app", "--workers", "1", "--access-log", "-", stdout=write)
        client = server.client()
        for _ in range(60):
            client.request("GET", "/?" + "x" * 3000)
            assert client.getresponse().read() == b"hello\n"
        os.read(read, 1 << 20)
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello\n"
        client.close()
        wait_until(lambda: re.search(r"\d+ lines of the access log were lost", server.log), "the loss is said")
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.e2e
def test_log_that_cannot_be_opened_is_named(launch: Callable[..., Server], folder: Path) -> None:
    server = launch("wsgi_odd:app", "--access-log", f"{folder}/none/access", ready=False, stdout=subprocess.DEVNULL)
    assert server.process.wait() == 3
    assert f"cannot open the log {folder}/none/access: No such file or directory" in server.log
    assert not server.path.exists()
