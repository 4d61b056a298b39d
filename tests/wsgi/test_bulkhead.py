"""What is slow is found out, and does not get the last thread that is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from stack.wsgi import bulkhead
from stack.wsgi.alone import Alone
from stack.wsgi.bulkhead import AT_LEAST, KNOWN, TIMES, Bulkhead
from stack.wsgi.connection import Service
from stack.wsgi.keeper import Keeper
from stack.wsgi.pool import Share

if TYPE_CHECKING:
    from stack.wsgi.connection import Connection

USUAL = 0.002  # seconds that most requests take here
REPORT = 30.0  # seconds: none of these tests waits for it
NOW = 1000.0  # seconds: monotonic
CONNECTION = cast("Connection", object())  # nobody looks at it


def asked(path: str, method: str = "GET") -> tuple[str, str]:
    return method, path


@pytest.fixture
def share(keeper: Keeper) -> Share:
    return Share(keeper.pool, keeper.enroll())


def learns(bulkhead: Bulkhead, path: str, seconds: float) -> None:
    """It takes so long, again and again."""
    for each in range(1, 3):
        bulkhead.ended(*asked(path), seconds, each * seconds)


class Worker:
    """Two threads, both busy, which have answered some requests."""

    def __init__(self, share: Share) -> None:
        self.busy = [True, True]
        self.alone = Alone(Service(lambda *_: [], memoryview(bytearray(16)).cast("d")))
        self.bulkhead = Bulkhead(self.busy, self.alone, share)
        for _ in range(100):
            self.bulkhead.ended(*asked("/quick"), USUAL, NOW)


@pytest.fixture
def worker(share: Share) -> Worker:
    return Worker(share)


def test_route_is_slow_that_takes_ten_times_as_long_as_half_of_all_do(worker: Worker) -> None:
    worker.bulkhead.ended(*asked("/page"), 0.9 * TIMES * USUAL, NOW)
    worker.bulkhead.ended(*asked("/report"), 1.5 * TIMES * USUAL, NOW)
    assert list(worker.bulkhead.slow) == ["GET /report"]


def test_what_is_usual_is_found_out(worker: Worker) -> None:
    for _ in range(1000):  # whatever took its time before, an import perhaps
        worker.bulkhead.ended(*asked("/page"), 20 * USUAL, NOW)
    worker.bulkhead.ended(*asked("/report"), 1.5 * TIMES * 20 * USUAL, NOW)
    assert "GET /page" not in worker.bulkhead.slow
    assert "GET /report" in worker.bulkhead.slow


def test_nothing_is_slow_that_takes_a_few_milliseconds(share: Share) -> None:
    bulkhead = Bulkhead([True], None, share)
    for _ in range(100):
        bulkhead.ended(*asked("/quick"), AT_LEAST / 1000, NOW)
    bulkhead.ended(*asked("/page"), 0.9 * AT_LEAST, NOW)
    assert not bulkhead.slow


def test_route_that_has_been_slow_once_does_not_wait(worker: Worker) -> None:
    worker.bulkhead.ended(*asked("/report"), REPORT, NOW)
    assert not worker.bulkhead.holds(*asked("/report"))
    worker.alone.serves = True
    assert not worker.bulkhead.holds(*asked("/report"))
    assert worker.alone.serves


def test_route_is_not_slow_because_several_of_its_requests_were_so_at_once(worker: Worker) -> None:
    for each in range(4):
        worker.bulkhead.ended(*asked("/report"), REPORT, NOW + each)
    assert not worker.bulkhead.holds(*asked("/report"))
    worker.bulkhead.ended(*asked("/report"), REPORT, NOW + REPORT)
    assert worker.bulkhead.holds(*asked("/report"))


def test_route_that_is_quick_again_is_not_slow_any_more(worker: Worker) -> None:
    learns(worker.bulkhead, "/report", REPORT)
    worker.bulkhead.ended(*asked("/report"), USUAL, NOW)
    assert not worker.bulkhead.slow


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (asked("/report/2027/1"), True),
        (asked("/report/x/1"), False),
        (asked("/report/2026/12", "POST"), False),
    ],
)
def test_numbers_in_a_path_make_no_other_route(worker: Worker, other: tuple[str, str], is_same: bool) -> None:  # noqa: FBT001 - a parameter
    learns(worker.bulkhead, "/report/2026/12", REPORT)
    assert worker.bulkhead.holds(*other) is is_same


def test_paths_of_any_length_and_number_take_no_more_than_a_little_memory(worker: Worker) -> None:
    for each in range(2 * KNOWN):
        worker.bulkhead.ended(*asked("/" + chr(ord("A") + each) + "x" * 60000), REPORT, NOW)
    assert 0 < len(worker.bulkhead.slow) <= KNOWN
    assert max(map(len, worker.bulkhead.slow)) < 1000


def test_slow_request_waits_where_no_other_thread_is_free(worker: Worker) -> None:
    learns(worker.bulkhead, "/report", REPORT)
    assert worker.bulkhead.holds(*asked("/report"))
    assert not worker.bulkhead.holds(*asked("/quick"))


def test_slow_request_does_not_wait_where_another_thread_is_free(worker: Worker) -> None:
    learns(worker.bulkhead, "/report", REPORT)
    worker.busy[1] = False
    assert not worker.bulkhead.holds(*asked("/report"))


def test_slow_request_does_not_wait_where_another_process_has_a_free_thread(keeper: Keeper, worker: Worker) -> None:
    learns(worker.bulkhead, "/report", REPORT)
    other = Share(keeper.pool, keeper.enroll())
    other.tell(free=True)
    assert not worker.bulkhead.holds(*asked("/report"))
    keeper.gone(other.number)
    assert worker.bulkhead.holds(*asked("/report"))


def test_only_one_waits(worker: Worker) -> None:
    learns(worker.bulkhead, "/report", REPORT)
    worker.bulkhead.held.append(CONNECTION)
    assert not worker.bulkhead.holds(*asked("/report"))


def test_slow_request_ends_that_one_thread_serves_alone(worker: Worker) -> None:
    learns(worker.bulkhead, "/report", REPORT)
    worker.alone.serves = True
    assert not worker.bulkhead.holds(*asked("/report"))
    assert not worker.alone.serves


def test_who_waits_is_due_once_another_thread_is_free(keeper: Keeper, worker: Worker) -> None:
    learns(worker.bulkhead, "/report", REPORT)
    assert worker.bulkhead.holds(*asked("/report"))
    worker.bulkhead.held.append(CONNECTION)
    worker.busy[0] = False  # the one that asks
    assert worker.bulkhead.due() is None
    other = Share(keeper.pool, keeper.enroll())
    other.tell(free=True)
    assert worker.bulkhead.due() is CONNECTION
    assert worker.bulkhead.due() is None
    worker.bulkhead.held.append(CONNECTION)
    other.tell(free=False)
    worker.busy[1] = False
    assert worker.bulkhead.due() is CONNECTION


def test_nobody_waits_for_longer_than_the_request_takes(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(bulkhead, "monotonic", lambda: now)
    learns(worker.bulkhead, "/report", 0.25)
    assert worker.bulkhead.holds(*asked("/report"))
    worker.bulkhead.held.append(CONNECTION)
    now += 0.24
    assert worker.bulkhead.due() is None
    now += 0.02
    assert worker.bulkhead.due() is CONNECTION


def test_nobody_waits_for_longer_than_a_second(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(bulkhead, "monotonic", lambda: now)
    learns(worker.bulkhead, "/report", REPORT)
    assert worker.bulkhead.holds(*asked("/report"))
    worker.bulkhead.held.append(CONNECTION)
    now += 1.01
    assert worker.bulkhead.due() is CONNECTION
