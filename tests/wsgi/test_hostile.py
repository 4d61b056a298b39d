"""A little of what `make fuzz` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

import pytest

from .conftest import Server, all_ready, wait_until
from .hostile import TARGETS, Target, check, harass

INPUTS = 3000
CONNECTIONS = 300
SEED = str(SystemRandom().randrange(1_000_000))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("seed", ["1", SEED], ids=["known", "fresh"])
def test_parser_stays_whole(target: Target, seed: str) -> None:
    for number in range(INPUTS):
        try:
            check(target, seed, number)
        except Exception as error:
            replay = f"FUZZ_SEED={seed} FUZZ_FIRST={number} FUZZ_INPUTS=1 FUZZ_CONNECTIONS=0 make fuzz"
            raise AssertionError(f"{target.name}: {replay}") from error


@pytest.mark.e2e
def test_server_stays_whole(launch: Callable[..., Server], folder: Path) -> None:
    where = f"{folder}/state"
    server = launch("wsgi_reads:app", "--workers", "2", "--threads", "2", "--state", where)
    wait_until(lambda: all_ready(where), "both have opened what they need")
    harass(server, SEED, range(CONNECTIONS))
