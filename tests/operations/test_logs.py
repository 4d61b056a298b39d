"""The log, the ports, the first stack.toml and the difference: what the smaller commands do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import config, files
from stack.desired import Logs
from stack.errors import ConfigError, StackError, UsageError
from stack.operations import logs, ports
from stack.operations.compare import differences
from stack.operations.init import init
from stack.operations.prepare import prepare
from stack.supervisor import sockets
from stack.supervisor.log import Log

WITHIN = 30.0  # seconds: a deadline for what should take milliseconds
LOG = """\
2026-01-01 00:00:00 stack[1] starts shop
2026-01-01 00:00:01 app[2] one
2026-01-01 00:00:02 nginx[3] mentions app[2]
2026-01-01 00:00:03 app[2] two
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "stack.log").write_text(LOG)
    (tmp_path / "access.log").write_text("GET /\n")
    return tmp_path / "stack.log"


def lines(log: Path, name: str = "", last: int = 100) -> list[str]:
    return [line.rstrip("\n").partition("] ")[2] or line.strip() for line in logs.lines(log, name, last, follow=False)]


def test_all_lines_or_the_last_ones(log: Path) -> None:
    assert lines(log) == ["starts shop", "one", "mentions app[2]", "two"]
    assert lines(log, last=2) == ["mentions app[2]", "two"]
    assert lines(log, last=0) == []


def test_a_services_own_lines(log: Path) -> None:
    assert lines(log, "app") == ["one", "two"]
    assert lines(log, "app", last=1) == ["two"]
    assert lines(log, "app", last=0) == []
    assert lines(log, "stack") == ["starts shop"]


def test_the_access_log_is_a_file_of_its_own(log: Path) -> None:
    assert lines(log, "access") == ["GET /"]


def test_a_name_that_has_written_nothing_lists_those_that_have(log: Path) -> None:
    with pytest.raises(UsageError) as caught:
        lines(log, "ap")
    assert caught.value.hint == "There is: access, app, nginx, stack."


def test_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="there is no log yet"):
        lines(tmp_path / "stack.log")


def test_bytes_that_are_no_text_are_no_obstacle(log: Path) -> None:
    log.write_bytes(b"2026-01-01 00:00:00 app[2] caf\xe9\n")
    assert lines(log, "app") == ["caf\ufffd"]


def test_following_shows_what_comes_whole_lines_only_and_across_files(log: Path) -> None:
    """Each line is written when the one before has been seen: nothing here waits for a time."""
    shown = logs.lines(log, "app", 1, follow=True)
    assert next(shown).endswith("] two\n")
    with log.open("ab", buffering=0) as stream:
        stream.write(b"2026-01-01 00:00:04 nginx[3] no\n2026-01-01 00:00:04 app[2] caf\xc3")
        rest = threading.Timer(0.15, stream.write, [b"\xa9\n"])  # while it looks again
        rest.start()
        assert next(shown) == "2026-01-01 00:00:04 app[2] café\n"
        rest.join()
    log.rename(log.with_name("stack.log.1"))
    Log(log, echo=False).line("app", 2, "in the new file")
    assert next(shown).endswith("app[2] in the new file\n")
    Log(log, echo=False).line("app", 2, "and on")
    assert next(shown).endswith("app[2] and on\n")


def test_following_loses_and_repeats_nothing_however_often_the_file_is_set_aside(tmp_path: Path) -> None:
    """The writer fills files as fast as it can; each line is a number."""
    log = Log(tmp_path / "stack.log", echo=False, kept=Logs(size=2000, keep=999))
    log.line("app", 1, "0")
    shown = logs.lines(log.path, "app", 100, follow=True)
    seen = [next(shown)]

    def write() -> None:
        for number in range(1, 3000):
            log.line("app", 1, str(number))

    writer = threading.Thread(target=write)
    writer.start()
    seen += [next(shown) for _ in range(1, 3000)]
    writer.join()
    assert [int(line.rpartition(" ")[2]) for line in seen] == list(range(3000))
    assert len(list(tmp_path.iterdir())) > 10


def test_what_the_list_of_the_folder_has_missed_is_not_lost(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is renamed meanwhile need not be in it (readdir(3))."""
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: (each for each in listed(folder) if each.suffix != ".1"))
    shown = logs.lines(log, "", 1, follow=True)
    next(shown)
    for number in (1, 2):
        for old in (2, 1):
            with contextlib.suppress(FileNotFoundError):
                log.with_name(f"{log.name}.{old}").rename(log.with_name(f"{log.name}.{old + 1}"))
        log.rename(log.with_name(f"{log.name}.1"))
        log.write_text(f"2026-01-01 00:00:05 app[2] {number}\n")
    assert next(shown).endswith("1\n")
    assert next(shown).endswith("2\n")


def test_what_comes_late_into_a_file_that_was_moved_is_not_lost(tmp_path: Path) -> None:
    """nginx's workers write into the old file until they have opened the new one."""
    access = tmp_path / "access.log"
    access.write_text("1\n")
    shown = logs.lines(tmp_path / "stack.log", "access", 10, follow=True)
    assert next(shown) == "1\n"
    with access.open("a") as worker:
        access.rename(tmp_path / "access.log.1")
        access.write_text("2\n")
        assert next(shown) == "2\n"
        worker.write("3\n")
        worker.flush()
        assert next(shown) == "3\n"
    with access.open("a") as worker:
        worker.write("4\n")
    assert next(shown) == "4\n"


def test_a_file_that_is_copied_away_and_emptied_is_followed_from_its_beginning(log: Path) -> None:
    shown = logs.lines(log, "", 1, follow=True)
    next(shown)
    os.truncate(log, 0)
    with log.open("a") as stream:
        stream.write("2026-01-01 00:00:05 app[2] after\n")
    assert next(shown).endswith("after\n")


def test_files_moved_by_somebody_else_s_scheme_are_not_told_twice(log: Path) -> None:
    log.with_name("stack.log.1").write_text("2025-01-01 00:00:00 app[2] older\n")
    shown = logs.lines(log, "", 5, follow=True)
    first, *_ = [next(shown) for _ in range(5)]
    assert first.endswith("older\n")
    log.rename(log.with_name("stack.log-20260101"))
    log.write_text("2026-01-01 00:00:05 app[2] new\n")
    assert next(shown).endswith("new\n")


def test_the_last_lines_are_of_several_files(log: Path) -> None:
    log.rename(log.with_name("stack.log.2"))
    log.with_name("stack.log.1").write_text("2026-01-01 00:00:04 app[2] three\n2026-01-01 00:00:05 nginx[3] x\n")
    log.write_text("2026-01-01 00:00:06 app[2] four\n")
    assert lines(log, "app") == ["one", "two", "three", "four"]
    assert lines(log, "app", last=3) == ["two", "three", "four"]
    assert lines(log, last=2) == ["x", "four"]
    assert lines(log, "stack") == ["starts shop"]
    with pytest.raises(UsageError) as caught:
        lines(log, "ap")
    assert caught.value.hint == "There is: access, app, nginx, stack."


def test_lines_are_text_or_json_as_wanted_whatever_is_in_the_file(log: Path) -> None:
    text = log.read_text().splitlines(keepends=True)
    Log(log, echo=False, kept=Logs(format="json")).line("app", 2, "three")
    *old, new = logs.lines(log, "app", 100, follow=False)
    assert old == [text[1], text[3]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d app\[2\] three\n", new)
    found = [json.loads(line) for line in logs.lines(log, "app", 100, follow=False, as_json=True)]
    assert [(each["service"], each["pid"], each["text"]) for each in found] == [
        ("app", 2, "one"),
        ("app", 2, "two"),
        ("app", 2, "three"),
    ]
    assert found[0]["time"].startswith("2026-01-01T00:00:01.000")
    assert log.read_text().endswith(json.dumps(found[2], separators=(",", ":")) + "\n")


def test_an_access_log_as_json_is_told_as_nginx_writes_it_else(log: Path) -> None:
    line = {"time": "2026-01-01T00:00:00+00:00", "service": "access", "pid": 7, "text": '1.2.3.4 - - "GET /"'}
    log.with_name("access.log").write_text(json.dumps(line) + "\n")
    assert list(logs.lines(log, "access", 9, follow=False)) == ['1.2.3.4 - - "GET /"\n']
    assert [json.loads(each) for each in logs.lines(log, "access", 9, follow=False, as_json=True)] == [line]


# Ports.


def test_a_free_address_is_listened_on() -> None:
    with ports.listening("127.0.0.1:0", 3) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_says_who_has_it_and_which_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(StackError) as caught:
            ports.listening(f"127.0.0.1:{port}", 3)
    assert caught.value.message.startswith(f"cannot listen on 127.0.0.1:{port}: pid {os.getpid()} has it (")
    free = caught.value.hint.partition("\n")[0].removeprefix("A free port: --listen ")
    sockets.listen(free, 1).close()
    assert int(free.rpartition(":")[2]) >= 8000


def test_an_address_of_another_machine_is_said() -> None:
    with pytest.raises(ConfigError) as caught:
        ports.listening("192.0.2.1:8000", 3)
    assert "cannot listen on 192.0.2.1:8000" in caught.value.message
    assert "ip address" in caught.value.hint


def test_a_port_of_roots_is_said_to_be_so() -> None:
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if os.geteuid() == 0 or (start.exists() and int(start.read_text()) <= 81):
        pytest.skip("every port is ours here: run the tests as another user too")
    with pytest.raises(ConfigError, match="ports below 1024 are root's") as caught:
        ports.listening("127.0.0.1:81", 3)
    assert "ip_unprivileged_port_start=81" in caught.value.hint


def test_a_port_that_nobody_seems_to_have_is_another_process() -> None:
    with sockets.listen("127.0.0.1:0", 1) as listener:
        port = listener.getsockname()[1]
    assert ports.holder(f"127.0.0.1:{port}") == ("another process has it", "")


# A project, and what would change.


@pytest.fixture
def project() -> Iterator[Path]:
    """A small app, and a program that says it is nginx: nothing here runs it."""
    directory = Path(tempfile.mkdtemp(prefix="shop-", dir="/tmp"))
    directory.chmod(0o755)
    (directory / "app.py").write_text("def app(environ, start_response): ...\n")
    (directory / "nginx").write_text("#!/bin/sh\necho 'nginx version: nginx/1.22.1' >&2\n")
    (directory / "nginx").chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def settle(project: Path, text: str = "") -> None:
    common = '[programs]\nnginx = "nginx"\n[stack]\nname = "shop"\nruntime_dir = "run"\n'
    common += f'[app]\npython = "{sys.executable}"\n'
    (project / "stack.toml").write_text(common + text)


def test_init_writes_what_it_found(project: Path) -> None:
    done = init(project)
    assert (done.path, done.problem) == (project / "stack.toml", None)
    assert done.app is not None
    loaded = config.load(project)
    assert loaded.config.apps["app"].target == f"{done.app.module}:{done.app.expression}" == "app:app"
    assert loaded.config.apps["app"].env_file == ""


def test_init_knows_of_secrets(project: Path) -> None:
    (project / ".env").write_text("TOKEN=x\n")
    init(project)
    assert config.load(project).config.apps["app"].env_file == ".env"


def test_init_without_an_app_writes_all_the_same(project: Path) -> None:
    (project / "app.py").unlink()
    done = init(project)
    assert done.app is None
    assert done.problem is not None
    assert config.load(project).config.apps["app"].target == "auto"


def test_init_changes_nothing_that_is_there(project: Path) -> None:
    (project / "stack.toml").write_text("# mine\n")
    with pytest.raises(StackError, match="is there already"):
        init(project)
    assert (project / "stack.toml").read_text() == "# mine\n"
    (project / "stack.toml").unlink()
    (project / "pyproject.toml").write_text("[tool.stackctl]\n")
    with pytest.raises(StackError, match=r"pyproject.toml is there already"):
        init(project)


def test_the_difference_of_a_stack_that_does_not_run_is_its_files(project: Path) -> None:
    settle(project)
    found = differences(project)
    assert [each.what.rpartition("/")[2] for each in found] == ["stackctl_entry.py", "nginx.conf", "site.conf"]
    assert all(each.text.startswith("--- /dev/null\n") for each in found)
    files.write(prepare(project).plan)
    assert differences(project) == []
    settle(project, "[site]\nmax_body = '1m'\n")
    (one,) = differences(project)
    assert "-    client_max_body_size 32m;\n+    client_max_body_size 1m;\n" in one.text


def test_the_difference_makes_nothing(project: Path) -> None:
    settle(project)
    before = sorted(each.name for each in project.iterdir())
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(project / "__pycache__")
    differences(project)
    assert sorted({each.name for each in project.iterdir()} - {"__pycache__"}) == sorted(set(before) - {"__pycache__"})
