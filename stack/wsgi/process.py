"""What a process asks of the system: descriptors 0 to 2, to die with its parent, to keep memory together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_SET_PDEATHSIG = 1  # <sys/prctl.h>
_ARENA_MAX = -8  # <malloc.h>
ARENAS = 2  # glibc has up to eight for each CPU


def open_standard_descriptors() -> None:
    """Open /dev/null where one of the descriptors 0 to 2 is closed: a socket would take the number, and get the log."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115 - stays open
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115 - stays open


_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent's thread ends (prctl(2)); end now if it has ended already."""
    _libc.prctl(_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def few_arenas() -> None:
    """Have malloc take memory for all threads from the same places (mallopt(3), M_ARENA_MAX), unless told otherwise.

    Threads of one interpreter allocate one after the other: an arena for each only scatters what they free. 5 % of the
    memory of eight workers of four threads with Flask.
    """
    if not {"MALLOC_ARENA_MAX", "GLIBC_TUNABLES"} & os.environ.keys():
        with contextlib.suppress(AttributeError):  # a libc that has no arenas
            _libc.mallopt(_ARENA_MAX, ARENAS)
