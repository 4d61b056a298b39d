"""The log: its lines, its end at a size, and that nothing about it stops the stack."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stack.desired import Logs
from stack.supervisor.log import Log, set_aside, set_aside_if_full


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


def small(size: int, keep: int = 3) -> Logs:
    return Logs(size=size, keep=keep)


def numbers(directory: Path) -> list[int]:
    """What was said, from the oldest file to the newest."""
    files = sorted(directory.glob("stack.log*"), key=lambda each: each.name, reverse=True)
    return [int(line.rpartition(" ")[2]) for each in files for line in each.read_text().splitlines()]


def test_a_file_that_is_full_is_set_aside_and_nothing_is_lost(tmp_path: Path) -> None:
    log = Log(tmp_path / "stack.log", echo=False, kept=small(200, keep=9))
    for number in range(40):
        log.say(f"number {number}")
    assert numbers(tmp_path) == list(range(40))
    assert all(each.stat().st_size < 300 for each in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) > 5
    assert log.lost == 0


def test_of_the_older_files_so_many_are_kept(tmp_path: Path) -> None:
    log = Log(tmp_path / "stack.log", echo=False, kept=small(10, keep=2))
    for number in range(9):
        log.say(f"number {number}")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["stack.log", "stack.log.1", "stack.log.2"]
    assert numbers(tmp_path) == [6, 7, 8]


def test_a_size_of_0_is_no_limit(tmp_path: Path) -> None:
    log = Log(tmp_path / "stack.log", echo=False, kept=small(0))
    log.say("x" * 1000)
    log.say("y")
    assert [each.name for each in tmp_path.iterdir()] == ["stack.log"]


def test_a_file_that_cannot_be_set_aside_is_written_on(tmp_path: Path) -> None:
    (tmp_path / "stack.log.1").mkdir()
    log = Log(tmp_path / "stack.log", echo=False, kept=small(10, keep=1))
    for number in range(5):
        log.say(f"number {number}")
    assert len((tmp_path / "stack.log").read_text().splitlines()) == 5
    assert log.lost == 0


def test_what_cannot_be_moved_costs_no_older_file(tmp_path: Path) -> None:
    path = tmp_path / "stack.log"
    for name in ("stack.log.1", "stack.log.3"):
        path.with_name(name).write_text(name)
    for _ in range(5):
        with pytest.raises(FileNotFoundError):
            set_aside(path, 3)
    path.mkdir()
    set_aside(path, 3)
    assert [path.with_name(f"stack.log.{each}").is_dir() for each in (1, 2, 3)] == [True, False, False]
    assert path.with_name("stack.log.2").read_text() == "stack.log.1"
    assert path.with_name("stack.log.3").read_text() == "stack.log.3"


def test_a_log_of_somebody_else_is_set_aside_when_it_is_full(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    assert not set_aside_if_full(path, small(10))
    path.write_text("short")
    assert not set_aside_if_full(path, small(10))
    path.write_text("long enough")
    assert not set_aside_if_full(path, small(0))
    assert set_aside_if_full(path, small(10))
    assert [each.name for each in tmp_path.iterdir()] == ["access.log.1"]


def test_a_log_that_was_moved_is_opened_again_by_its_name(tmp_path: Path) -> None:
    log = Log(tmp_path / "stack.log", echo=False)
    log.say("one")
    log.path.rename(tmp_path / "moved")
    log.say("two")
    log.reopen()
    log.say("three")
    assert (tmp_path / "moved").read_text().endswith("two\n")
    assert log.path.read_text().endswith("three\n")


def test_a_log_that_cannot_be_opened_again_goes_on_in_the_old_file(tmp_path: Path) -> None:
    log = Log(tmp_path / "stack.log", echo=False)
    log.say("one")
    log.path.rename(tmp_path / "moved")
    log.path.mkdir()
    log.reopen()
    log.say("two")
    assert (tmp_path / "moved").read_text().endswith("two\n")
    assert log.lost == 0


def test_lines_as_json_have_time_with_milliseconds_and_zone_service_pid_and_text(tmp_path: Path) -> None:
    log = Log(tmp_path / "stack.log", echo=False, kept=Logs(format="json"))
    log.line("app", 12, 'hellö "you"\x00')
    log.say("two\nlines")
    first, *rest = [json.loads(line) for line in log.path.read_text("utf-8").splitlines()]
    assert list(first) == ["time", "service", "pid", "text"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", first.pop("time"))
    assert first == {"service": "app", "pid": 12, "text": 'hellö "you"\x00'}
    assert [(each["service"], each["pid"], each["text"]) for each in rest] == [
        ("stack", os.getpid(), "two"),
        ("stack", os.getpid(), "lines"),
    ]


def test_text_that_is_no_utf_8_is_written_all_the_same(tmp_path: Path) -> None:
    Log(tmp_path / "stack.log", echo=False).say("caf\udce9")
    assert (tmp_path / "stack.log").read_text().endswith("caf?\n")


def test_a_log_without_a_directory_costs_lines_and_says_so_when_there_is_one(tmp_path: Path) -> None:
    log = Log(tmp_path / "none" / "stack.log", echo=False)
    log.say("one")
    log.say("two")
    assert log.lost == 2
    (tmp_path / "none").mkdir()
    log.say("three")
    said = [line.partition("] ")[2] for line in log.path.read_text().splitlines()]
    assert (log.lost, said) == (0, ["2 lines were lost: No such file or directory", "three"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file system: run the tests as root too")
def test_a_disk_that_is_full_costs_whole_lines_and_they_are_counted() -> None:
    """On a file system of 16 KB, in a mount namespace of its own."""
    script = """
import os, sys
from pathlib import Path
from stack.supervisor.log import Log
log, filler = Log(Path("/mnt/stack.log"), echo=False), Path("/mnt/filler")
log.say("first")
with filler.open("wb", buffering=0) as stream:
    try:
        while True:
            stream.write(bytes(4096))
    except OSError:
        pass
number = 0
while not log.lost:  # in the end a line fits in part
    number += 1
    log.say(f"number {number} " + "x" * 100)
log.say("also lost " + "x" * 100)
filler.unlink()
log.say("last")
print(number, log.lost)
print(log.path.read_text(), end="")
"""
    argv = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=16k none /mnt && exec "$@"', "sh"]
    done = subprocess.run(
        [*argv, sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    counted, *lines = done.stdout.splitlines()
    number, lost = map(int, counted.split())
    assert number > 2
    assert lost == 0
    said = [line.partition("] ")[2] for line in lines]
    whole = [f"number {each} " + "x" * 100 for each in range(1, number)]
    assert said == ["first", *whole, "2 lines were lost: No space left on device", "last"]


def test_a_file_that_may_not_grow_costs_whole_lines(tmp_path: Path) -> None:
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
    lost = int(ran(script, str(tmp_path / "stack.log")).stdout)
    lines = (tmp_path / "stack.log").read_text().splitlines(keepends=True)
    assert lost == 20 - len(lines) > 10
    assert all(line.endswith("] a line\n") for line in lines)


def test_a_line_that_a_killed_supervisor_left_half_written_does_not_garble_the_next(tmp_path: Path) -> None:
    (tmp_path / "stack.log").write_text("half a li")
    Log(tmp_path / "stack.log", echo=False).say("whole")
    half, whole = (tmp_path / "stack.log").read_text().splitlines()
    assert half == "half a li"
    assert whole.endswith("] whole")


@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_what_is_no_file_gets_no_line_and_blocks_nothing(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "stack.log")
    log = Log(tmp_path / "stack.log", echo=False)
    log.say("x")
    assert log.lost == 1


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


def test_a_terminal_whose_window_takes_nothing_does_not_stop_the_stack(tmp_path: Path) -> None:
    """A terminal says that it takes something when it takes less than a line: who believes it waits for ever."""
    window, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", ECHO, str(tmp_path / "stack.log")],
            stdout=terminal,
            stderr=subprocess.PIPE,
            timeout=60,
            check=True,
        )
    finally:
        os.close(window)
        os.close(terminal)
    assert done.stderr == b"done"
    assert len((tmp_path / "stack.log").read_text().splitlines()) == 5000


def test_a_reader_that_falls_behind_gets_whole_lines_and_how_many_it_missed(tmp_path: Path) -> None:
    script = (
        ECHO
        + """
import os
sys.stderr.flush()
sys.stdin.read()  # until the test has read what was written
log.flush()
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "stack.log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.read(4) == b"done"
        first = os.read(process.stdout.fileno(), 1 << 20)
        process.stdin.close()
        shown = (first + process.stdout.read()).decode().splitlines()
    (missed,) = [line for line in shown if line.startswith("... ")]
    written = (tmp_path / "stack.log").read_text().splitlines()
    place = shown.index(missed)
    assert shown[:place] == written[:place]
    assert missed == f"... {5000 - place - 1000} lines that nobody took: see stackctl logs"
    after = shown[place + 1 :]
    assert after == written[-1000:][: len(after)]
    assert after


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
