"""The log: its lines, its end at a size, and that nothing about it stops the stack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stack.supervisor import log as module
from stack.supervisor.log import Log

FULL = Path("/dev/full")


def ran(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=True
    )


def test_a_line_has_time_service_and_pid(tmp_path: Path) -> None:
    log = Log(tmp_path / "stack.log", echo=False)
    log.line("app", 12, "hellö")
    log.say("starts")
    first, second = (tmp_path / "stack.log").read_text("utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d app\[12\] hellö", first)
    assert second.endswith(f" stack[{os.getpid()}] starts")
    assert (log.lost, (tmp_path / "stack.log").stat().st_mode & 0o007) == (0, 0)


def test_an_old_log_goes_on(tmp_path: Path) -> None:
    (tmp_path / "stack.log").write_text("before\n")
    Log(tmp_path / "stack.log", echo=False).say("after")
    assert (tmp_path / "stack.log").read_text().startswith("before\n2")


def test_a_file_that_is_large_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    path = tmp_path / "stack.log"
    path.write_text("x" * 101 + "\n")
    log = Log(path, echo=False)
    for number in range(20):
        log.say(f"number {number}")
    aside = (tmp_path / "stack.log.1").read_text()
    assert "number 19" in path.read_text()
    assert "number 19" not in aside
    assert path.stat().st_size <= 200
    assert sorted(each.name for each in tmp_path.iterdir()) == ["stack.log", "stack.log.1"]
    assert log.lost == 0


def test_a_file_that_cannot_be_set_aside_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 10)
    (tmp_path / "stack.log.1").mkdir()
    log = Log(tmp_path / "stack.log", echo=False)
    for number in range(5):
        log.say(f"number {number}")
    assert len((tmp_path / "stack.log").read_text().splitlines()) == 5
    assert log.lost == 0


def test_text_that_is_no_utf_8_is_written_all_the_same(tmp_path: Path) -> None:
    Log(tmp_path / "stack.log", echo=False).say("caf\udce9")
    assert (tmp_path / "stack.log").read_text().endswith("caf?\n")


def test_a_log_without_a_directory_costs_lines(tmp_path: Path) -> None:
    log = Log(tmp_path / "none" / "stack.log", echo=False)
    log.say("one")
    log.say("two")
    assert log.lost == 2
    (tmp_path / "none").mkdir()
    log.say("three")
    assert (log.lost, (tmp_path / "none" / "stack.log").read_text()[-6:]) == (2, "three\n")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_a_full_disk_costs_lines() -> None:
    log = Log(FULL, echo=False)
    log.say("one")
    log.say("two")
    assert log.lost == 2


def test_a_file_that_may_not_grow_costs_lines(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from stack.supervisor.log import Log
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
log = Log(Path(sys.argv[1]), echo=False)
for number in range(20):
    log.say("a line")
print(log.lost)
"""
    assert int(ran(script, str(tmp_path / "stack.log")).stdout) > 10
    assert (tmp_path / "stack.log").stat().st_size == 100


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "stack.log").symlink_to(tmp_path / "victim")
    log = Log(tmp_path / "stack.log", echo=False)
    log.say("x")
    assert ((tmp_path / "victim").read_text(), log.lost) == ("precious", 1)


ECHO = """
import sys
from pathlib import Path
from stack.supervisor.log import Log
log = Log(Path(sys.argv[1]), echo=True)
log.release()
for number in range(5000):
    log.line("app", 1, f"number {number} " + "x" * 100)
sys.stderr.write("done")
"""


def test_in_the_foreground_lines_are_shown_without_colour_in_a_pipe(tmp_path: Path) -> None:
    script = ECHO.replace("5000", "3")
    done = ran(script, str(tmp_path / "stack.log"))
    assert done.stdout == (tmp_path / "stack.log").read_text()
    assert "\x1b" not in done.stdout


def test_lines_wait_until_the_summary_has_been_said(tmp_path: Path) -> None:
    script = ECHO.replace("5000", "3").replace("log.release()", "")
    script += "log.flush(); print('summary', flush=True); log.release()"
    done = ran(script, str(tmp_path / "stack.log"))
    assert done.stdout == "summary\n" + (tmp_path / "stack.log").read_text()


def test_a_terminal_that_takes_nothing_does_not_stop_the_stack(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", ECHO, str(tmp_path / "stack.log")],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=True,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.stderr == b"done"
    assert len((tmp_path / "stack.log").read_text().splitlines()) == 5000


def test_a_terminal_that_has_gone_does_not_stop_the_stack(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = ECHO.replace("5000", "3")
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "stack.log")],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.stderr.startswith(b"done")
    assert len((tmp_path / "stack.log").read_text().splitlines()) == 3
