"""What every run of the tests says first."""

from __future__ import annotations

import os
from random import SystemRandom

os.environ.setdefault("FLEET_SEED", str(SystemRandom().getrandbits(32)))


def pytest_report_header() -> str:
    return f"FLEET_SEED={os.environ['FLEET_SEED']} replays the fresh part of the fleet's simulation"
