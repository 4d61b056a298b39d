"""A signal interrupts, but not in the middle of what would be left half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from stack import interrupts


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in interrupts.ENDING}
    interrupts._came.clear()
    yield
    interrupts._came.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.ENDING, ids=lambda each: each.name)
def test_signal_waits_for_the_end_of_what_is_held(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    interrupts.listen()
    done = []

    def work() -> None:
        with interrupts.held():
            signal.pthread_kill(threading.get_ident(), number)  # a test runner has more threads than a command
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_error_of_what_is_held_is_its_own() -> None:
    with pytest.raises(ZeroDivisionError), interrupts.held():
        raise ZeroDivisionError


def test_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.listen()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_what_is_done_is_not_interrupted() -> None:
    interrupts.listen()
    interrupts.ignore()
    for each in interrupts.ENDING:
        os.kill(os.getpid(), each)


class Callback:
    """Python drops what its destructor raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_signal_that_python_drops_interrupts_where_it_is_looked_for() -> None:
    interrupts.listen()
    callback = Callback()
    del callback
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
