"""As the first process of a container, which must also bury other people's dead."""

from __future__ import annotations

import shutil
import signal
import subprocess

import psutil
import pytest

from .project import Project, until

pytestmark = pytest.mark.e2e

ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--")


def can_be_alone() -> bool:
    return (
        shutil.which(ALONE[0]) is not None
        and subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_be_alone(), reason="`unshare --pid` is not allowed here (it wants root)")
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


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
