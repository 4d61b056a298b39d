"""The signals that end a command: each interrupts it as a Ctrl-C does, but where something would be left half done.

What makes or removes things that must not be left behind is done inside `held`: a signal that comes meanwhile
interrupts at its end. A process that is started in there inherits that these signals wait; it must let them come.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["ENDING", "check", "held", "ignore", "listen"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []  # those that interrupted this process, or should have


def listen() -> None:
    """From now on each of them raises KeyboardInterrupt, but those that whoever started us had us ignore (nohup)."""
    for each in ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _interrupt)


def ignore() -> None:
    """From now on none of them does anything: what was asked for is done, and only to be told."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    signal.default_int_handler(number, frame)


def check() -> None:
    """Interrupts if one of them came and was lost.

    Python drops what is raised in a destructor or a weak reference's callback, and an import makes many of those.

    Raises:
        KeyboardInterrupt: one came.
    """
    if _came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within it none of them interrupts; at its end, one that came does.

    Raises:
        KeyboardInterrupt: one came.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
