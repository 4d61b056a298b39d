"""Generations of real processes, without a web server or an app."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from stack.desired import Service
from stack.supervisor.generations import Generations
from stack.supervisor.log import Log

FORGETS_THE_FIRST_SIGNAL = """
import os, signal, sys, time
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1) or (len(came) > 1 and sys.exit(0)))
open(sys.argv[1], "w").write(str(os.getpid()))
while True:
    time.sleep(60)
"""


def test_process_that_forgets_a_signal_is_asked_again(tmp_path: Path) -> None:
    pid_file = str(tmp_path / "pid")
    argv = (sys.executable, "-c", FORGETS_THE_FIRST_SIGNAL, pid_file)
    service = Service("forgetful", 0, argv, str(tmp_path), pid_file=pid_file, stop_within=60.0)
    log = Log(tmp_path / "log", echo=False)

    async def story() -> None:
        generations = Generations([service], {}, log)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, generations.reap)
        keeping = asyncio.create_task(generations.keep())
        await generations.until(lambda: generations.all_proven)
        generations.stop()
        await keeping

    asyncio.run(story())
    assert "kills" not in log.path.read_text()
