"""What processes use: CPU time and memory of a whole family, and of the machine. Reads only."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import psutil

__all__ = ["cpu", "ended", "machine", "memory"]


def cpu(pid: int) -> float:
    """Seconds of CPU that the process and its descendants have used, those that have ended and were waited for too."""
    total = 0.0
    for each in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            used = each.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def memory(pid: int) -> int:
    """Bytes of the process and its descendants; a page that several share counts once among all of them (PSS)."""
    total = 0
    for each in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_full_info().pss
    return total


def ended() -> float:
    """Seconds of CPU of our children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine() -> tuple[float, float]:
    """Seconds of CPU used on this machine, and that there were, since it started."""
    times = psutil.cpu_times()
    everything = sum(times) - times.guest - times.guest_nice  # these are counted in user and nice already
    return everything - times.idle - times.iowait, everything


def _family(pid: int) -> Iterator[psutil.Process]:
    first = psutil.Process(pid)
    yield first
    yield from first.children(recursive=True)
