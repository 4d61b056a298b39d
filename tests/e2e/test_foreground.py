"""`up` in the foreground: what it says, how it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from http.client import HTTPException

import pytest

from .project import IN_THE_SERVER, Project, listens, until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_foreground_introduces_itself_logs_and_ends_with_a_signal(steered: Project, number: signal.Signals) -> None:
    stack = steered.start("up", "--listen", steered.address)
    stack.says(steered.url)
    assert steered.url in stack.err
    assert "capacity" in stack.err
    assert "app generation 1 is ready" in stack.out
    assert steered.get("/say/hello").status == 200
    until(lambda: "said hello" in stack.out, "the app's line is shown")
    assert steered.status()["pid"] == stack.process.pid
    stack.process.send_signal(number)
    assert stack.wait() == 0
    assert "stopped" in stack.out
    steered.nothing_is_left()


def test_request_in_hand_at_sigterm_is_finished(steered: Project) -> None:
    stack = steered.start("up", "--listen", steered.address)
    stack.says(steered.url)
    go_on, begun = steered.event("go-on"), steered.event("go-on.begun")
    answers: list[str] = []
    visitor = threading.Thread(target=lambda: answers.append(steered.get(f"/wait?for={go_on}").text))
    visitor.start()
    until(begun.exists, "the request is in hand")
    stack.process.send_signal(signal.SIGTERM)
    until(lambda: not listens(steered.port), "nobody is let in any more")
    assert stack.process.poll() is None
    go_on.touch()
    visitor.join()
    assert answers == ["waited"]
    assert stack.wait() == 0
    steered.nothing_is_left()


def cut_off(project: Project, path: str) -> None:
    """A request that comes to nothing: broken off, or a 502 where the app server ended a moment before nginx."""
    with contextlib.suppress(OSError, HTTPException):
        assert project.get(path).status == 502


def test_second_signal_ends_it_without_waiting_for_requests(steered: Project) -> None:
    stack = steered.start("up", "--listen", steered.address)
    stack.says(steered.url)
    never, begun = steered.event("never"), steered.event("never.begun")
    visitor = threading.Thread(target=cut_off, args=(steered, f"/wait?for={never}"))
    visitor.start()
    until(begun.exists, "the request is in hand")
    stack.process.send_signal(signal.SIGTERM)
    until(lambda: not listens(steered.port), "the first signal has come")
    stack.process.send_signal(signal.SIGTERM)
    assert stack.wait() == 0
    visitor.join()
    steered.nothing_is_left()


def test_foreground_that_cannot_start_says_why_and_leaves_nothing(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format("1 / 0"))
    stack = steered.start("up", "--listen", steered.address)
    assert stack.wait() == 1
    assert "ZeroDivisionError" in stack.err
    steered.nothing_is_left()
