"""The access log: a line for each request, written whole to what is opened for appending, so that processes mix none.

A line is at most as long as a pipe takes whole; a longer one has its texts cut. Whatever cannot be written (disk full,
a pipe that is gone, or full) is counted, said in the error log when a line gets through again, and costs no request.

Lines for a file are made and written together, up to MOST_PENDING of them, or once a thread has had nothing to do for a
moment: each by itself, they had a Flask request take 1.13 of the CPU time that it takes without a log; so it is 1.01 to
1.05. What a killed process had not written is lost.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import stat
import time
from collections import deque
from typing import TYPE_CHECKING

from . import log
from .dates import MONTHS

if TYPE_CHECKING:
    from .environ import Environ

FORMATS = ("common", "combined", "json")
LONGEST = select.PIPE_BUF  # bytes that a pipe takes in one piece (pipe(7))
CUTS = (LONGEST, 800, 60)  # characters of each text of a line, tried in turn until it is short enough
MOST_PENDING = 32  # lines
KNOWN = 256  # requests whose part of a line is kept, for when they are said again
KNOWN_LONGEST = 1024  # characters of one
MODE = 0o640  # addresses of visitors are not for everybody
IDENTITY = re.compile(r"[0-9A-Za-z._:/+=@-]{1,128}")  # nothing that a log, a header or a shell takes for its own

# What of an environ is logged, None where it has none; taken before the app is called, which may change it.
Asked = tuple[str | None, ...]
FIELDS = (
    "REMOTE_ADDR",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_URI",
    "PATH_INFO",
    "SERVER_PROTOCOL",
    "HTTP_REFERER",
    "HTTP_USER_AGENT",
    "HTTP_X_REQUEST_ID",
)


def identify(environ: Environ) -> None:
    """See that the request has an id: the one that it came with, if it is a plain token, else a new one."""
    if "HTTP_X_REQUEST_ID" not in environ or not IDENTITY.fullmatch(environ["HTTP_X_REQUEST_ID"]):
        environ["HTTP_X_REQUEST_ID"] = f"{_process}{next(_count)}"


_count = itertools.count(10**11)  # so that they are all of one length
_process = ""  # what this process's ids begin with: asking the kernel for each would cost more than the rest


def _draw() -> None:
    global _process  # noqa: PLW0603 - each process has its own
    _process = os.urandom(10).hex()


_draw()
os.register_at_fork(after_in_child=_draw)


def identity(environ: Environ) -> str:
    """The id as lines of the error log have it, at the end of what happened."""
    return f"request {environ.get('HTTP_X_REQUEST_ID', '?')}"


def line(form: str, request: Asked, status: int, size: int, seconds: float, ended: float) -> bytes:
    """The line of a request that ended at this moment (seconds since 1970), in one of FORMATS."""
    text = _json if form == "json" else _apache
    data = text(form, request, status, size, seconds, ended)
    if len(data) > LONGEST:
        for most in CUTS:
            data = text(form, tuple((each or "")[:most] for each in request), status, size, seconds, ended)
            if len(data) <= LONGEST:
                break
    return data


class Access:
    """An access log: a file by its path, or with `-` the standard output.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, form: str) -> None:
        self._path = path
        self._form = form
        self._fields = FIELDS if form == "json" else FIELDS[:-1]  # the id is another each time
        self._fd = 1 if path == "-" else _opened(path)
        self._waits = not stat.S_ISREG(os.fstat(self._fd).st_mode)  # a pipe may be full: writing would block
        self._lost = 0
        self.pending: deque[tuple[Asked, int, int, float, float]] = deque()

    def reopen(self) -> None:
        """Open the file again by its name; after a failure the old one goes on being written.

        Raises:
            OSError: it cannot be opened.
        """
        if self._path == "-":
            return
        self.flush()
        fresh = _opened(self._path)
        os.dup2(fresh, self._fd, inheritable=False)  # in one step: no thread finds the number closed
        os.close(fresh)

    def asked(self, environ: Environ) -> Asked:
        """What the log says of a request."""
        return tuple(map(environ.get, self._fields))

    def refused(self, address: str | None, status: int) -> None:
        """Write the line of what was no request, from this address if it is known."""
        self.write((address, *[None] * (len(self._fields) - 1)), status, 0, 0.0)

    def write(self, request: Asked, status: int, size: int, seconds: float) -> None:
        """Write the line of a request, now or with others (see `flush`)."""
        self.pending.append((request, status, size, seconds, time.time()))
        if self._waits or len(self.pending) >= MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        lines = []
        try:
            while True:
                lines.append(line(self._form, *self.pending.popleft()))
        except IndexError:  # sooner than thought, where another thread does the same
            pass
        for data in lines if self._waits else [b"".join(lines)] if lines else ():
            self._put(data)

    def _put(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data) if not self._waits or _takes(self._fd) else 0
        except OSError:
            written = 0
        if written < len(data):
            self._lost += data.count(b"\n", written)
        elif self._lost:
            lost, self._lost = self._lost, 0
            log.line(f"{lost} lines of the access log were lost")


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC, MODE)


def _takes(fd: int) -> bool:
    """Whether a pipe has room for a line, or a terminal for anything."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _json(_: str, request: Asked, status: int, size: int, seconds: float, ended: float) -> bytes:
    addr, user, method, target, path, protocol, referer, agent, identity = (_decoded(each or "") for each in request)
    found = {
        "time": _rfc3339(ended - seconds),
        "pid": os.getpid(),
        "request_id": identity,
        "remote_addr": addr,
        "remote_user": user,
        "method": method,
        "target": target or path,
        "protocol": protocol,
        "status": status,
        "bytes": size,
        "seconds": round(seconds, 6),
        "referer": referer,
        "user_agent": agent,
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def _apache(form: str, request: Asked, status: int, size: int, seconds: float, ended: float) -> bytes:
    before, between, after = _known.get((form, request)) or _parts(form, request)
    return f"{before}{_clock(ended - seconds)}{between}{status} {size or '-'}{after}\n".encode("ascii")


# What a line has before its moment, between that and the status, and after the size.
_known: dict[tuple[str, Asked], tuple[str, str, str]] = {}


def _parts(form: str, request: Asked) -> tuple[str, str, str]:
    told = [each or "" for each in request]
    small = sum(map(len, told)) <= KNOWN_LONGEST
    if not _PLAIN.fullmatch("".join(told)):  # together: most requests have nothing to escape
        told = list(map(_escaped, told))
    addr, user, method, target, path, protocol, referer, agent = told
    first = f"{method} {target or path} {protocol}" if method else "-"
    addr, user = addr.replace(" ", "\\x20"), user.replace(" ", "\\x20")  # fields end at a space
    after = f' "{referer or "-"}" "{agent or "-"}"' if form == "combined" else ""
    found = f"{addr or '-'} - {user or '-'} [", f'] "{first}" ', after
    if small:
        if len(_known) >= KNOWN:
            _known.clear()  # what is still asked for is found again
        _known[form, request] = found
    return found


# As Apache writes them: quotation marks and backslashes with a backslash, what is not printable ASCII as \xhh.
_ESCAPED = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 256))} | {0x22: '\\"', 0x5C: "\\\\"}
_PLAIN = re.compile(r"[ !#-\[\]-~]*")


def _escaped(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return text.translate(_ESCAPED).encode("ascii", "backslashreplace").decode("ascii")


def _decoded(text: str) -> str:
    """WSGI has bytes as latin-1; most of them are UTF-8."""
    return text if text.isascii() else text.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")


_clocked: tuple[int, str] = (0, "")


def _clock(moment: float) -> str:
    """`31/Jan/2026:12:00:00 +0100`, without the names that the app's locale may have; made once a second."""
    global _clocked  # noqa: PLW0603 - a cache of one pair, replaced whole, so that threads may race for it
    second = int(moment)
    cached = _clocked
    if cached[0] != second:
        now = time.localtime(second)
        month = MONTHS[now.tm_mon - 1]
        cached = second, time.strftime(f"%d/{month}/%Y:%H:%M:%S {_zone(now)}", now)
        _clocked = cached
    return cached[1]


def _rfc3339(moment: float) -> str:
    now = time.localtime(moment)
    zone = _zone(now)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{int(moment % 1 * 1000):03d}{zone[:3]}:{zone[3:]}", now)


def _zone(now: time.struct_time) -> str:
    minutes = now.tm_gmtoff // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
