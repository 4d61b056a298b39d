"""What a worker tells in its generation's file, and how it starts where others have died: the very module."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack.appservers import tally
from tests.e2e.project import until

WORKER = """
import signal, sys, stackctl_tally
{}
print("begins", flush=True)
told = stackctl_tally.Tally()
print("loads", flush=True)
sys.stdin.readline()
told.loaded()
told.tell(True, 1, 20, 3, 4.5)
print("told", flush=True)
signal.pause()
"""
STAYS_AWAKE = "signal.sigtimedwait = lambda signals, seconds: print(f'waits {seconds:g}', flush=True)"
WITHIN = 20.0  # seconds: a deadline


class Worker:
    """A process that has the module."""

    def __init__(self, place: Path, first: str) -> None:
        environment = {tally.VARIABLE: str(place / "tally"), "PYTHONPATH": str(place)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER.format(first)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self.process.pid
        assert self.says() == "begins"

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def loads(self) -> str:
        """Lets it load the app; what it said before."""
        said, before = self.says(), ""
        if said != "loads":
            said, before = self.says(), said
        assert said == "loads"
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        assert self.says() == "told"
        return before

    def dies(self) -> None:
        self.process.kill()
        self.process.wait(WITHIN)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    module = tally.file("app", "apps/app")
    (tmp_path / Path(module.path).name).write_text(module.text)
    with ExitStack() as ends:

        def started(first: str = "") -> Worker:
            worker = Worker(tmp_path, first)
            ends.enter_context(worker.process)
            ends.callback(worker.process.kill)
            return worker

        yield started


def places(tmp_path: Path) -> list[int]:
    return [each["pid"] for each in tally.read(str(tmp_path / "tally"))]


def test_what_a_worker_tells_is_read(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start()
    worker.loads()
    (told,) = tally.read(str(tmp_path / "tally"))
    assert told.pop("age") >= 0
    assert told == {
        "pid": worker.pid,
        "state": "ready",
        "busy": 1,
        "requests": 20,
        "errors": 3,
        "requests_per_second": 4.5,
    }


def test_each_has_a_place_and_leaves_it_to_its_successor(start: Callable[..., Worker], tmp_path: Path) -> None:
    first, second = start(), start()
    first.loads()
    second.loads()
    assert sorted(places(tmp_path)) == sorted([first.pid, second.pid])
    first.dies()
    third = start()
    third.loads()
    assert sorted(places(tmp_path)) == sorted([second.pid, third.pid])


def test_one_death_costs_no_pause_and_the_next_ones_more_and_more(start: Callable[..., Worker]) -> None:
    assert deaths(start, 8) == ["", "", "waits 0.5", "waits 1", "waits 2", "waits 4", "waits 8", "waits 15"]


def test_worker_that_is_told_to_end_while_it_waits_ends_at_once(start: Callable[..., Worker], tmp_path: Path) -> None:
    deaths(start, 8)
    worker = start()
    until(lambda: places(tmp_path) == [worker.pid], "it has its place, and waits")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.says() == ""
    assert worker.process.wait(WITHIN) in {0, -signal.SIGTERM}  # a moment before it waits it is not asked


def deaths(start: Callable[..., Worker], number: int) -> list[str]:
    """Workers that die one after the other; how long each was to wait."""
    found = []
    for _ in range(number):
        worker = start(STAYS_AWAKE)
        found.append(worker.loads())
        worker.dies()
    return found


def test_without_its_file_a_worker_starts_all_the_same(start: Callable[..., Worker], tmp_path: Path) -> None:
    (tmp_path / "tally").mkdir()
    start().loads()


def test_a_link_in_its_place_is_not_followed(start: Callable[..., Worker], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "tally").symlink_to("elsewhere")
    start().loads()
    assert (tmp_path / "elsewhere").stat().st_size == 0
    with pytest.raises(OSError, match="symbolic links"):
        tally.read(str(tmp_path / "tally"))
