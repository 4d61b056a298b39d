"""Requests that are said again: what they say is read once.

A client says the same with many of its requests, but for the moment that the web server writes beside it
(X-Request-Start over HTTP, REQUEST_START over uwsgi). What is left without that moment is looked up. Only a request
that has arrived whole, and has no body, is found so; any other is for the parsers, and so is each the first time.

It spares a seventh of all that the processor does for a small Flask request over uwsgi (470,000 instructions, of which
63,000). Clients choose what they ask: no more is kept than takes a megabyte.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from . import environ as environs
from . import http, uwsgi
from .protocol import ProtocolError
from .variables import length, passed

if TYPE_CHECKING:
    from .environ import Environ, Origin
    from .http import Head

LONGEST = 1024  # bytes of a request; no --max-head is less
MOST = 256
FIELD = b"\r\nX-Request-Start: "
DIGITS = 14  # of nginx's $msec until 2286, with its point
VARIABLE = b"\r\0REQUEST_START%c\0" % DIGITS


def of_http(buffer: bytes, origin: Origin) -> tuple[Head, Environ] | None:
    """The head in these bytes, all that came, and the environ but for its `wsgi.input`; None if it is not known."""
    before, field, rest = buffer.partition(FIELD)
    if not field or len(buffer) > LONGEST or not rest.endswith(b"\r\n\r\n"):
        return None
    moment, line_end, after = rest.partition(b"\r\n")
    if not moment.replace(b".", b"", 1).isdigit():
        return None
    found = _head(before + line_end + after, origin)
    if found is None:
        return None
    head, environ = found
    environ = environ.copy()
    environ["HTTP_X_REQUEST_START"] = moment.decode("ascii")
    return head, environ


def of_uwsgi(buffer: bytes, origin: Origin) -> tuple[bytes, Environ] | None:
    """The request's line, and the environ but for its `wsgi.input`; None if it is not known."""
    before, variable, rest = buffer.partition(VARIABLE)
    if not variable or len(buffer) > LONGEST:
        return None
    moment = rest[:DIGITS]
    if not moment.replace(b".", b"", 1).isdigit():
        return None
    found = _packet(before, rest[DIGITS:], origin)
    if found is None:
        return None
    line, environ = found
    environ = environ.copy()
    environ["REQUEST_START"] = moment.decode("ascii")
    return line, environ


@lru_cache(MOST)
def _head(said: bytes, origin: Origin) -> tuple[Head, Environ] | None:
    """What the whole of these bytes says. Since they have one empty line, at their end, so had all that arrived."""
    if said.startswith(b"\r"):  # the parser passes over an empty line
        return None
    try:
        head = http.head(said)
        if head is None or head.size != len(said) or head.length != 0 or "HTTP_X_REQUEST_START" in head.fields:
            return None
        return head, _roomy(environs.of_http(head, origin, None), "HTTP_X_REQUEST_START")
    except ProtocolError:
        return None


@lru_cache(MOST)
def _packet(before: bytes, after: bytes, origin: Origin) -> tuple[bytes, Environ] | None:
    """What the variables before and after the moment say, if both end where one of them does."""
    size = len(before) + len(VARIABLE) + DIGITS + len(after)
    if before[:3] != b"\0" + (size - uwsgi.HEADER).to_bytes(2, "little"):
        return None
    try:
        found = passed([*uwsgi.pairs(before), *uwsgi.pairs(bytes(uwsgi.HEADER) + after)])
        if length(found) or "REQUEST_START" in found:
            return None
        environ = environs.of_variables(found, origin)
        line = environs.request_line(environ).encode("latin-1", "replace")
        return line, _roomy(environ, "REQUEST_START")
    except ProtocolError:
        return None


def _roomy(environ: Environ, moment: str) -> Environ:
    """The same, with the keys that each request has a value of its own for: else most copies were built anew for them.

    That is a third of what a copy takes (0.16 us): a dict of up to 21 has no room for a 22nd.
    """
    return environ | {moment: "", "wsgi.input": None}
