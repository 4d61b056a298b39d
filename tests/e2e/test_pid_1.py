"""As the first process of a container, which must also bury other people's dead."""

from __future__ import annotations

import shutil
import signal
import subprocess

import psutil
import pytest

from .project import IN_THE_SERVER, Project, until

pytestmark = pytest.mark.e2e

ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--")


def can_be_alone() -> bool:
    return (
        shutil.which(ALONE[0]) is not None
        and subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    )


alone = pytest.mark.skipif(not can_be_alone(), reason="`unshare --pid` is not allowed here (it wants root)")
# An orphan of whoever looks for the app, before there is a supervisor.
LEAVES_AN_ORPHAN = """
import os, sys

if "stackctl_entry" not in sys.modules and os.fork() == 0:
    os.setsid()  # out of reach of whoever ends what the import has left
    if os.fork() == 0:
        os.setsid()
    os._exit(0)

def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""


@alone
def test_first_process_serves_reaps_orphans_and_ends_with_sigterm(steered: Project) -> None:
    stack = steered.start("up", "--listen", steered.address, before=ALONE)
    stack.says(steered.url)
    (supervisor,) = psutil.Process(stack.process.pid).children()
    assert steered.status()["pid"] == 1
    for _ in range(3):
        assert int(steered.get("/orphan").text) > 1
    until(lambda: not [each for each in supervisor.children(recursive=True) if is_dead(each)], "no zombie is left")
    assert len(supervisor.children()) == 2  # the app server and nginx, and none that was adopted
    assert steered.get("/").text == "1"
    supervisor.send_signal(signal.SIGTERM)
    assert stack.wait() == 0
    steered.nothing_is_left()


@alone
def test_first_process_buries_those_who_died_before_it_supervised(steered: Project) -> None:
    steered.write("app.py", LEAVES_AN_ORPHAN)
    stack = steered.start("up", "--listen", steered.address, before=ALONE)
    stack.says(steered.url)
    (supervisor,) = psutil.Process(stack.process.pid).children()
    assert [each for each in supervisor.children(recursive=True) if is_dead(each)] == []


@alone
def test_first_process_that_cannot_start_ends_with_the_code_that_says_why(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format("os._exit(3)"))
    stack = steered.start("up", "--listen", steered.address, before=ALONE)
    assert stack.wait() == 1
    assert "app did not start" in stack.err
    steered.write("app.py", "1 / 0\n")
    assert steered.start("up", "--listen", steered.address, before=ALONE).wait() == 3
    steered.nothing_is_left()


@alone
def test_first_process_that_is_stopped_before_the_site_answered_says_so(steered: Project) -> None:
    steered.write("app.py", IN_THE_SERVER.format("open(os.environ['BEGUN'], 'w').close(); time.sleep(600)"))
    begun = steered.event("begun")
    stack = steered.start("up", "--listen", steered.address, "--set", f"app.env.BEGUN={begun}", before=ALONE)
    until(begun.exists, "the app is being loaded")
    (supervisor,) = psutil.Process(stack.process.pid).children()
    supervisor.send_signal(signal.SIGTERM)
    assert stack.wait() == 130
    steered.nothing_is_left()


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
