"""What every run of the tests says first."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from random import SystemRandom
from typing import Literal

import hypothesis
import pytest

SEEDS = {
    "FLEET_SEED": "replays the fresh part of the fleet's simulation",
    "KILL_SEED": "the moments at which supervisors are killed",
}
GROUP = re.compile(r"@[^@\[\]/]*$")  # of --dist loadgroup
# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# A shell has what it runs in the background ignore SIGINT, and nohup SIGHUP: so would all that the tests start, but for
# a handler, which nobody inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
for name in SEEDS:
    os.environ.setdefault(name, str(SystemRandom().getrandbits(32)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Literal[True] | None:
    """What has no end-to-end test is not imported by a run of these alone: each process of the run would do it."""
    if config.option.markexpr != "e2e" or not collection_path.match("test_*.py"):
        return None
    return None if "mark.e2e" in collection_path.read_text("utf-8") else True


def pytest_report_header() -> list[str]:
    return [f"{name}={os.environ[name]} {what}" for name, what in SEEDS.items()]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """By its own name, without the group that pytest-xdist puts behind it: --last-failed finds no test of that name."""
    if "PYTEST_XDIST_WORKER" not in os.environ:  # there they are still told apart by it
        report.nodeid = GROUP.sub("", report.nodeid)
