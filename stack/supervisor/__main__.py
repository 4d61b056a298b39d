"""`python -m stack.supervisor RUNTIME_DIR`: takes over from `stackctl up`, which has written the plan and got the lock.

The descriptors of the lock and of the public sockets are inherited and named on the command line. In the foreground
this is the same process that the user started, so its pid, its terminal and its exit status are what they expect.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from stack import errors
from stack.supervisor import notify, place, runner
from stack.supervisor.log import Log
from stack.supervisor.outcome import Outcome
from stack.supervisor.supervisor import Supervisor


def main() -> int:
    """Runs the stack until it is stopped; returns the exit code."""
    arguments = _arguments()
    if arguments.parent:
        runner.end_with(arguments.parent)
    plan = place.recall(arguments.runtime_dir)
    listeners = dict(_listener(each) for each in arguments.listener)
    manager = notify.Manager(notify.taken(os.environ))
    _keep_to_ourselves()
    runner.adopt_orphans()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # nothing is open yet that could be opened again
    log = Log(plan.log, echo=arguments.report is None, kept=plan.logs)

    def announce(outcome: Outcome) -> None:
        if arguments.report is not None:
            # Whoever asked may have been killed meanwhile: then there is nobody to tell.
            with contextlib.suppress(BrokenPipeError), os.fdopen(arguments.report, "w", encoding="utf-8") as stream:
                json.dump(outcome.as_json(), stream)
            return
        text = errors.told(outcome.message, outcome.detail, outcome.hint) if outcome.message else plan.welcome()
        with contextlib.suppress(OSError):  # the terminal has been closed
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - the foreground is a terminal's
        if not outcome.message:
            log.release()

    try:
        place.sign(arguments.lock, os.getpid(), time.time())
        place.prepare(plan)
    except OSError as error:  # a disk that is full by now
        message = f"the runtime directory {plan.runtime_dir} cannot be used: {error}"
        announce(Outcome(message, exit_code=1))
        manager.status(message, error.errno or 0)
        place.leave(plan.alias or plan.runtime_dir)
        return 1
    return asyncio.run(Supervisor(plan, listeners, log, announce, manager).run())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stack.supervisor", description="Started by `stackctl up`.")
    parser.add_argument("runtime_dir")
    parser.add_argument("--lock", type=int, required=True, help="descriptor that holds the stack's lock")
    parser.add_argument("--listener", action="append", default=[], help="HOST:PORT=DESCRIPTOR of a listening socket")
    parser.add_argument("--parent", type=int, help="process with which the stack ends")
    parser.add_argument("--report", type=int, help="descriptor to report to (detached); without: the foreground")
    return parser.parse_args()


def _listener(text: str) -> tuple[str, socket.socket]:
    address, _, descriptor = text.rpartition("=")
    return address, socket.socket(fileno=int(descriptor))


def _keep_to_ourselves() -> None:
    """Nothing that we inherited is inherited further, except 0-2; what a service gets, it gets on purpose."""
    for name in Path("/proc/self/fd").iterdir():
        if int(name.name) > 2:
            try:
                os.set_inheritable(int(name.name), False)
            except OSError:
                continue  # the descriptor of this very listing


if __name__ == "__main__":
    os._exit(main())  # all is written and closed: whoever waits need not wait until Python has taken itself apart
